"""How the times of a dialogue add up, on a virtual clock."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from agent_dispatch.claude.child import Child
from agent_dispatch.core.command import Command
from agent_dispatch.core.dialogue.record import dialogue_from_result
from agent_dispatch.core.stream.events import Event
from agent_dispatch.model.config import EffectiveAgent, Settings
from agent_dispatch.model.dialogue import DialogueRequest, DialogueResult, Role
from agent_dispatch.model.dispatch import ErrorType, ignore_progress
from agent_dispatch.model.next_step import NextStep, StepKind
from agent_dispatch.run.plan import DialoguePlan
from tests.core.builders import agent
from tests.run.fake_claude import INIT, FakeClaude, answer, tasks
from tests.run.stage import make_runner

REQUEST = DialogueRequest(requester="backend", responder="db", topic="Are we migrated?")


class Two:
    """Two agents played by fakes, each with 300 s for a turn."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.db = FakeClaude((1, INIT), (4, answer("Which?")), then_hangs=True)
        self.backend = FakeClaude((1, INIT), (4, answer("[RESOLVED]")), then_hangs=True)
        for name in ("db", "backend"):
            (directory / name).mkdir()

    def __call__(self, command: Command, *rest: Any) -> AbstractAsyncContextManager[Child]:
        fake: FakeClaude = getattr(self, Path(command.cwd).name)
        return fake(command, *rest)

    async def talk(self, **changes: object) -> DialogueResult:
        runner, _ = make_runner(self._directory, self)
        agents = {Role.RESPONDER: self._agent("db"), Role.REQUESTER: self._agent("backend")}
        request = msgspec.structs.replace(REQUEST, **changes)
        plan = DialoguePlan(request=request, agents=agents, settings=Settings())
        return dialogue_from_result(await runner.call(plan, ignore_progress))

    def _agent(self, name: str) -> EffectiveAgent:
        return agent(name=name, directory=str(self._directory / name))


@pytest.fixture
def two(tmp_path: Path) -> Two:
    return Two(tmp_path)


async def test_each_turn_has_its_time_and_the_dialogue_that_of_all(
    two: Two, autojump_clock: MockClock
) -> None:
    outcome = await two.talk()
    assert outcome.resolved
    assert [turn.duration_ms for turn in outcome.conversation] == [5000, 5000]
    # And a while for those who do not leave when all is said.
    assert outcome.total_duration_ms == 12_000
    assert [two.db.ended_by, two.backend.ended_by] == [["close", "end"]] * 2


@pytest.mark.parametrize(("asked", "given"), [(60, 60), (1, 10), (1e9, 300)])
async def test_the_time_for_the_whole_is_clamped_and_ends_the_turn_in_hand(
    two: Two, autojump_clock: MockClock, asked: float, given: float
) -> None:
    two.db = FakeClaude((1, INIT), then_hangs=True)
    outcome = await two.talk(timeout_s=asked)
    assert trio.current_time() == pytest.approx(given)
    assert (outcome.resolved, outcome.error_type) == (False, ErrorType.TIMEOUT)
    assert outcome.error is not None
    assert ("whole dialogue" in outcome.error) == (given < 300)
    assert two.db.ended_by[:2] == ["interrupt", "close"]
    assert outcome.sessions is not None


async def test_the_time_for_the_whole_is_that_of_all_turns_together(
    two: Two, autojump_clock: MockClock
) -> None:
    two.backend = FakeClaude((1, INIT), (100, answer("[RESOLVED]")), then_hangs=True)
    outcome = await two.talk(timeout_s=60)
    assert trio.current_time() == pytest.approx(60 + 2)
    assert [turn.message for turn in outcome.conversation] == ["Which?"]
    assert outcome.error is not None
    longer = NextStep(kind=StepKind.MORE_TIME, timeout_s=120)
    assert longer in (outcome.next_steps or ())


async def test_an_answer_that_arrived_outranks_the_time_for_the_whole(
    two: Two, autojump_clock: MockClock
) -> None:
    waits = ((1, INIT), (0, tasks(1)), (1, answer("All is well. [RESOLVED]")))
    two.db = FakeClaude(*waits, then_hangs=True)
    outcome = await two.talk(timeout_s=60)
    assert (outcome.resolved, outcome.final_answer) == (True, "All is well.")
    assert outcome.error is None
    assert outcome.hint is not None
    assert "background task" in outcome.hint


async def test_nobody_is_asked_when_the_time_for_the_whole_is_over(
    two: Two, autojump_clock: MockClock
) -> None:
    waits = ((1, INIT), (0, tasks(1)), (1, answer("I started the tests")))
    two.db = FakeClaude(*waits, then_hangs=True)
    outcome = await two.talk(timeout_s=60)
    assert [turn.message for turn in outcome.conversation] == ["I started the tests"]
    assert outcome.error_type is ErrorType.TIMEOUT
    assert two.backend.commands == []


async def test_later_turns_have_the_agents_time_anew(two: Two, autojump_clock: MockClock) -> None:
    late: list[list[tuple[float, Event]]] = [[(200, answer("hm"))], [(200, answer("[RESOLVED]"))]]
    two.db = FakeClaude((1, INIT), (200, answer("hm")), then_hangs=True, later=late)
    two.backend = FakeClaude((1, INIT), (200, answer("hm")), then_hangs=True, later=late)
    outcome = await two.talk()
    assert outcome.resolved
    assert outcome.rounds == 3
    assert len(two.db.commands) == len(two.backend.commands) == 1
    assert outcome.total_duration_ms > 1_000_000


async def test_a_turn_costs_what_it_adds_to_the_total_of_the_session_if_nothing_else_tells(
    two: Two, autojump_clock: MockClock
) -> None:
    def costs(text: str, total_usd: float) -> tuple[float, Event]:
        return 1, msgspec.structs.replace(answer(text), total_cost_usd=total_usd)

    two.db = FakeClaude(
        (1, INIT), costs("hm", 0.5), then_hangs=True, later=[[costs("[RESOLVED]", 0.75)]]
    )
    two.backend = FakeClaude((1, INIT), costs("hm", 0.25), then_hangs=True)
    outcome = await two.talk()
    assert [turn.cost_usd for turn in outcome.conversation] == [0.5, 0.25, 0.25]
    assert outcome.total_cost_usd == 1.0
