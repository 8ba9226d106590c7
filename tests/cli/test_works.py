import signal
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
import trio

from agent_dispatch.cli.run.foreground import Attended
from agent_dispatch.cli.run.works import ManyDispatches, OneDialogue, OneDispatch
from agent_dispatch.jobs.errors import UnknownJobError
from agent_dispatch.model.dialogue import DialogueRequest, DialogueResult, DialogueTurn, Role
from agent_dispatch.model.dispatch import (
    DispatchRequest,
    DispatchResult,
    ErrorType,
    Member,
    OnProgress,
    Progress,
    ignore_progress,
)
from agent_dispatch.model.next_step import NextStep, StepKind
from agent_dispatch.run.service import Service
from tests.cli.support import ANSWER, JOB_ID, FakeService

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
    """Starts jobs, and is cancelled then."""

    def __init__(self, records: dict[int | None, DispatchResult | None]) -> None:
        super().__init__()
        self._records = records
        self.scope = trio.CancelScope()

    async def _begin(self, on_progress: OnProgress) -> Any:
        for member in self._records:
            on_progress(Progress("Job", f"job-{member}", member))
        self.scope.cancel()
        await trio.sleep_forever()

    async def dispatch(
        self,
        request: DispatchRequest,
        on_progress: OnProgress = ignore_progress,
        *,
        ref: bool = False,
        fresh: bool = False,
        alone: bool = False,
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


async def interrupt(
    work: Callable[[Service, OnProgress], Awaitable[object]],
    records: dict[int | None, DispatchResult | None],
) -> None:
    service = Interrupted(records)
    with trio.fail_after(5), service.scope:
        await work(service, ignore_progress)
    assert service.scope.cancelled_caught


async def test_after_a_signal_a_dispatch_is_what_was_recorded_of_it() -> None:
    one = OneDispatch(DispatchRequest(agent="infra", task="x"))
    await interrupt(one.work, {None: CANCELLED})
    result = one.outcome(Attended(None, signal.SIGINT))
    assert result.session_id == CANCELLED.session_id
    assert result.error == "Cancelled by SIGINT."
    assert result.next_steps == [RESUME]


async def test_an_answer_that_was_recorded_outranks_the_signal() -> None:
    one = OneDispatch(DispatchRequest(agent="infra", task="x"))
    await interrupt(one.work, {None: ANSWER})
    assert one.outcome(Attended(None, signal.SIGINT)) == ANSWER


async def test_without_a_record_it_was_cancelled_all_the_same() -> None:
    one = OneDispatch(DispatchRequest(agent="infra", task="x"))
    await interrupt(one.work, {None: None})
    result = one.outcome(Attended(None, signal.SIGTERM))
    assert result.error_type is ErrorType.CANCELLED
    assert "SIGTERM" in (result.error or "")


async def test_answers_that_had_arrived_outlive_the_signal() -> None:
    member = Member(request=DispatchRequest(agent="infra", task="x"))
    many = ManyDispatches([member, member, member], "db")
    await interrupt(many.work, {1: ANSWER, 0: CANCELLED})
    outcome = many.outcome(Attended(None, signal.SIGINT))
    first, second, third = outcome.individual_results
    assert first.error == "Cancelled by SIGINT."
    assert second == ANSWER
    assert third.error_type is ErrorType.CANCELLED
    assert outcome.aggregated is not None
    assert outcome.aggregated.agent == "db"


async def test_what_was_said_in_a_dialogue_outlives_the_signal() -> None:
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
    one = OneDialogue(DialogueRequest(requester="db", responder="infra", topic="x"))
    await interrupt(one.work, {None: recorded})
    result = one.outcome(Attended(None, signal.SIGINT))
    assert result.conversation == [turn]
    assert result.error == "Cancelled by SIGINT."
    assert result.job_id == JOB_ID


async def test_a_dialogue_that_had_not_begun_was_cancelled() -> None:
    one = OneDialogue(DialogueRequest(requester="db", responder="infra", topic="x"))
    await interrupt(one.work, {None: None})
    result = one.outcome(Attended(None, signal.SIGINT))
    assert (result.rounds, result.error_type) == (0, ErrorType.CANCELLED)
