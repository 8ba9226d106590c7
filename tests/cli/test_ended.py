import signal
from collections.abc import Sequence
from typing import Any

import msgspec
import trio

from agent_dispatch.claude.fork_server import ForkServer
from agent_dispatch.cli.run.ended import Ended, dialogue_result, dispatch_result, parallel_result
from agent_dispatch.cli.run.foreground import Call, T, run_in_foreground
from agent_dispatch.cli.run.progress import Style
from agent_dispatch.jobs.errors import UnknownJobError
from agent_dispatch.model.dialogue import DialogueRequest, DialogueResult, DialogueTurn, Role
from agent_dispatch.model.dispatch import (
    NO_OPTIONS,
    CallOptions,
    DispatchRequest,
    DispatchResult,
    ErrorType,
    Member,
    OnProgress,
    Progress,
    ignore_progress,
)
from agent_dispatch.model.next_step import NextStep, StepKind
from tests.cli.support import ANSWER, JOB_ID, FakeService, World

RESUME = NextStep(kind=StepKind.RESUME, agent="infra", session_id="5e")
CANCELLED = DispatchResult(
    agent="infra",
    success=False,
    result="",
    session_id="11111111-1111-4111-8111-111111111111",
    error="Cancelled by its caller.",
    next_steps=[RESUME],
    error_type=ErrorType.CANCELLED,
)


class Interrupted(FakeService):
    """Starts jobs, and receives a signal then."""

    def __init__(self, records: dict[int | None, DispatchResult | None]) -> None:
        super().__init__()
        self._records = records

    async def _begin(self, on_progress: OnProgress) -> Any:
        for member in self._records:
            on_progress(Progress("Job", f"job-{member}", member))
        signal.raise_signal(signal.SIGINT)
        await trio.sleep_forever()

    async def dispatch(
        self,
        request: DispatchRequest,
        on_progress: OnProgress = ignore_progress,
        options: CallOptions = NO_OPTIONS,
    ) -> DispatchResult:
        raise await self._begin(on_progress)

    async def parallel(
        self,
        members: Sequence[Member],
        aggregate: str = "",
        on_progress: OnProgress = ignore_progress,
    ) -> Any:
        return await self._begin(on_progress)

    async def dialogue(
        self, request: DialogueRequest, on_progress: OnProgress = ignore_progress
    ) -> DialogueResult:
        raise await self._begin(on_progress)

    async def result(self, ref: str) -> DispatchResult:
        await trio.lowlevel.checkpoint()
        records = {f"job-{member}": record for member, record in self._records.items()}
        if (record := records[ref]) is None:
            raise UnknownJobError(ref)
        return record


def interrupt(
    world: World, call: Call[T], records: dict[int | None, DispatchResult | None]
) -> Ended[T]:
    world.service = Interrupted(records)
    return run_in_foreground(world.shell(), ForkServer(None), call, Style.LOG)


REQUEST = DispatchRequest(agent="infra", task="x")
TALK = DialogueRequest(requester="db", responder="infra", topic="x")


def interrupted_dispatch(world: World, record: DispatchResult | None) -> DispatchResult:
    ended = interrupt(world, lambda service, tell: service.dispatch(REQUEST, tell), {None: record})
    return dispatch_result(ended, "infra")


def interrupted_dialogue(world: World, record: DispatchResult | None) -> DialogueResult:
    ended = interrupt(world, lambda service, tell: service.dialogue(TALK, tell), {None: record})
    return dialogue_result(ended, "infra")


def test_after_a_signal_a_dispatch_is_what_was_recorded_of_it(world: World) -> None:
    result = interrupted_dispatch(world, CANCELLED)
    assert result.session_id == CANCELLED.session_id
    assert result.error == "Cancelled by SIGINT."
    assert result.next_steps == [RESUME]


def test_an_answer_that_was_recorded_outranks_the_signal(world: World) -> None:
    assert interrupted_dispatch(world, ANSWER) == ANSWER


def test_without_a_record_it_was_cancelled_all_the_same(world: World) -> None:
    result = interrupted_dispatch(world, None)
    assert result.error_type is ErrorType.CANCELLED
    assert "SIGINT" in (result.error or "")


def test_answers_that_had_arrived_outlive_the_signal(world: World) -> None:
    members = [Member(request=REQUEST)] * 3
    ended = interrupt(
        world,
        lambda service, tell: service.parallel(members, "db", tell),
        {1: ANSWER, 0: CANCELLED},
    )
    outcome = parallel_result(ended, members, "db")
    first, second, third = outcome.individual_results
    assert first.error == "Cancelled by SIGINT."
    assert second == ANSWER
    assert third.error_type is ErrorType.CANCELLED
    assert outcome.aggregated is not None
    assert outcome.aggregated.agent == "db"


def test_what_was_said_in_a_dialogue_outlives_the_signal(world: World) -> None:
    turn = DialogueTurn(agent="infra", role=Role.RESPONDER, round=1, message="Which one?")
    said = DialogueResult(
        resolved=False,
        rounds=1,
        total_duration_ms=5,
        final_answer="Which one?",
        conversation=[turn],
        error=CANCELLED.error,
        error_type=ErrorType.CANCELLED,
    )
    recorded = msgspec.structs.replace(
        CANCELLED, job_id=JOB_ID, parsed_result=msgspec.to_builtins(said)
    )
    result = interrupted_dialogue(world, recorded)
    assert result.conversation == [turn]
    assert result.error == "Cancelled by SIGINT."
    assert result.job_id == JOB_ID


def test_a_dialogue_that_had_not_begun_was_cancelled(world: World) -> None:
    result = interrupted_dialogue(world, None)
    assert (result.rounds, result.error_type) == (0, ErrorType.CANCELLED)
