import traceback
from collections.abc import AsyncIterator, Callable
from functools import partial

import msgspec
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from agent_dispatch.errors import DispatchError
from agent_dispatch.model.config import CacheSettings, Settings
from agent_dispatch.model.dispatch import (
    CallOptions,
    DispatchRequest,
    DispatchResult,
    ErrorType,
    Evidence,
    OnProgress,
    Progress,
    ignore_progress,
)
from agent_dispatch.model.next_step import NextStep, StepKind
from agent_dispatch.run.plan import Plan
from agent_dispatch.run.single_flight import SingleFlight
from agent_dispatch.run.time_limit import TimeLimit
from tests.core.builders import agent

SETTINGS = CacheSettings()
JOB = "1" * 32


def plan(timeout_s: float | None = None, task: str = "look") -> Plan:
    request = DispatchRequest(agent="infra", task=task, timeout_s=timeout_s)
    return Plan(request=request, agent=agent(timeout_s=60.0), settings=Settings(), prompt=task)


class Runs:
    """Starts runs that end when they are told to."""

    def __init__(self) -> None:
        self.started = 0
        self.cancelled = 0
        self.begin = trio.Event()
        self.finish = trio.Event()
        self.outcome: DispatchResult | Exception = DispatchResult(
            agent="infra",
            success=True,
            result="fine",
            job_id=JOB,
            cost_usd=0.5,
            evidence=Evidence(tool_calls=0, read_only=True),
        )
        self.limits: list[TimeLimit] = []

    async def start(self, on_progress: OnProgress, limit: TimeLimit) -> DispatchResult:
        self.started += 1
        self.limits.append(limit)
        on_progress(Progress(f"Job {JOB}", JOB))
        await self.begin.wait()
        limit.begin()
        try:
            with limit.scope:
                await self.finish.wait()
                if isinstance(self.outcome, Exception):
                    raise self.outcome
                return self.outcome
        except trio.Cancelled:
            self.cancelled += 1
            raise
        return DispatchResult(
            agent="infra",
            success=False,
            result="",
            error=f"Timed out after {limit.timeout_s:g} s.",
            error_type=ErrorType.TIMEOUT,
        )


class Call:
    """One call and what came of it."""

    def __init__(self, sharing: SingleFlight, runs: Runs, nursery: trio.Nursery) -> None:
        self._sharing = sharing
        self._runs = runs
        self._nursery = nursery
        self.scope = trio.CancelScope()
        self.result: DispatchResult | None = None
        self.failure: Exception | None = None
        self.ended_at = -1.0
        self.told: list[str] = []

    async def begin(
        self, timeout_s: float | None = None, task: str = "look", *, outlives: bool = False
    ) -> "Call":
        self._nursery.start_soon(self._go, timeout_s, task, outlives)
        await wait_all_tasks_blocked()
        return self

    async def _go(self, timeout_s: float | None, task: str, outlives: bool) -> None:
        try:
            with self.scope:
                self.result = await self._sharing.answer(
                    plan(timeout_s, task),
                    lambda progress: self.told.append(progress.message),
                    self._runs.start,
                    outlives=outlives,
                )
        except DispatchError as error:
            self.failure = error
        self.ended_at = trio.current_time()


MakeCall = Callable[[], Call]


@pytest.fixture
def runs() -> Runs:
    return Runs()


@pytest.fixture
async def sharing() -> AsyncIterator[SingleFlight]:
    async with trio.open_nursery() as nursery:
        yield SingleFlight(nursery)
        nursery.cancel_scope.cancel()


@pytest.fixture
def call(sharing: SingleFlight, runs: Runs, nursery: trio.Nursery) -> MakeCall:
    return lambda: Call(sharing, runs, nursery)


async def test_the_same_asked_at_once_is_run_once(call: MakeCall, runs: Runs) -> None:
    calls = [await call().begin() for _ in range(8)]
    runs.begin.set()
    runs.finish.set()
    await wait_all_tasks_blocked()
    assert runs.started == 1
    first, *others = [c.result for c in calls]
    assert first is not None
    assert (first.result, first.cached, first.cost_usd) == ("fine", None, 0.5)
    assert others == [first] * 7
    assert calls[0].told == [f"Job {JOB}"]
    assert calls[1].told == [f"infra · asked the same already, job {JOB[-8:]}"]


async def test_another_question_is_run_beside_it(call: MakeCall, runs: Runs) -> None:
    await call().begin()
    await call().begin(task="something else")
    assert runs.started == 2


async def test_the_same_asked_later_is_answered_from_the_cache(
    call: MakeCall, runs: Runs, sharing: SingleFlight
) -> None:
    runs.begin.set()
    runs.finish.set()
    first, second = await call().begin(), await call().begin()
    assert runs.started == 1
    assert first.result is not None
    assert second.result is not None
    assert second.result.cached_at is not None
    assert second.result == msgspec.structs.replace(
        first.result, cached=True, cached_at=second.result.cached_at, cost_usd=0
    )
    assert second.told == ["infra · answered from the cache"]
    stats = sharing.stats(SETTINGS)
    assert (stats.hits, stats.misses, stats.size) == (1, 1, 1)


async def test_who_joins_a_run_counts_as_a_hit(
    call: MakeCall, runs: Runs, sharing: SingleFlight
) -> None:
    for _ in range(4):
        await call().begin()
    stats = sharing.stats(SETTINGS)
    assert (stats.hits, stats.misses, stats.hit_rate) == (3, 1, 0.75)


async def test_a_cancelled_leader_hands_over(call: MakeCall, runs: Runs) -> None:
    leader, follower = await call().begin(), await call().begin()
    runs.begin.set()
    leader.scope.cancel()
    await wait_all_tasks_blocked()
    assert (leader.result, runs.cancelled) == (None, 0)
    runs.finish.set()
    await wait_all_tasks_blocked()
    assert follower.result is not None
    assert (follower.result.result, follower.result.cached) == ("fine", None)
    assert runs.started == 1


async def test_the_run_ends_with_its_last_caller(call: MakeCall, runs: Runs) -> None:
    calls = [await call().begin() for _ in range(3)]
    runs.begin.set()
    for one in calls:
        assert runs.cancelled == 0
        one.scope.cancel()
        await wait_all_tasks_blocked()
    assert runs.cancelled == 1


async def test_a_run_goes_on_if_any_of_its_callers_was_to_get_it_later(
    call: MakeCall, runs: Runs
) -> None:
    calls = [await call().begin(outlives=outlives) for outlives in (False, True, False)]
    runs.begin.set()
    for one in calls:
        one.scope.cancel()
    await wait_all_tasks_blocked()
    runs.finish.set()
    await wait_all_tasks_blocked()
    assert runs.cancelled == 0
    later = await call().begin()
    assert later.result is not None
    assert later.result.cached


async def test_who_asks_after_that_has_a_new_run(call: MakeCall, runs: Runs) -> None:
    first = await call().begin()
    first.scope.cancel()
    await wait_all_tasks_blocked()
    runs.begin.set()
    runs.finish.set()
    second = await call().begin()
    assert runs.started == 2
    assert second.result is not None
    assert second.result.cached is None


async def test_a_failure_is_told_to_all_and_kept_for_nobody(call: MakeCall, runs: Runs) -> None:
    runs.outcome = DispatchResult(agent="infra", success=False, result="", error="no")
    calls = [await call().begin() for _ in range(2)]
    runs.begin.set()
    runs.finish.set()
    await wait_all_tasks_blocked()
    assert [c.result.error for c in calls if c.result] == ["no", "no"]
    await call().begin()
    assert runs.started == 2


async def test_a_refusal_is_raised_to_all(call: MakeCall, runs: Runs) -> None:
    runs.outcome = DispatchError("cannot be recorded")
    calls = [await call().begin() for _ in range(3)]
    runs.begin.set()
    runs.finish.set()
    await wait_all_tasks_blocked()
    assert [str(c.failure) for c in calls] == ["cannot be recorded"] * 3


async def test_an_answer_that_was_under_way_is_not_kept_after_clearing(
    call: MakeCall, runs: Runs, sharing: SingleFlight
) -> None:
    waiting = await call().begin()
    assert sharing.clear() == 0
    runs.begin.set()
    runs.finish.set()
    await wait_all_tasks_blocked()
    assert waiting.result is not None
    await call().begin()
    assert runs.started == 2


async def test_who_asks_after_clearing_does_not_join_a_run_from_before(
    call: MakeCall, runs: Runs, sharing: SingleFlight
) -> None:
    before = await call().begin()
    sharing.clear()
    after = await call().begin()
    assert runs.started == 2
    runs.begin.set()
    runs.finish.set()
    await wait_all_tasks_blocked()
    assert [asked.result and asked.result.cached for asked in (before, after)] == [None, None]


async def test_each_caller_keeps_its_own_deadline(
    call: MakeCall, runs: Runs, autojump_clock: MockClock
) -> None:
    runs.begin.set()
    hasty, patient = await call().begin(timeout_s=10), await call().begin(timeout_s=100)
    await trio.sleep(50)
    assert (hasty.ended_at, patient.result) == (10, None)
    assert hasty.result is not None
    assert hasty.result.error_type is ErrorType.TIMEOUT
    assert hasty.result.job_id == JOB
    assert hasty.result.next_steps == [NextStep(kind=StepKind.WAIT, job_id=JOB)]
    runs.finish.set()
    await wait_all_tasks_blocked()
    assert patient.result is not None
    assert patient.result.success


async def test_callers_with_the_same_deadline_all_get_what_the_run_says_at_it(
    call: MakeCall, runs: Runs, autojump_clock: MockClock
) -> None:
    calls = [await call().begin(timeout_s=30) for _ in range(3)]
    runs.begin.set()
    await trio.sleep(31)
    results = [asked.result for asked in calls]
    assert [result and result.error for result in results] == ["Timed out after 30 s."] * 3


async def test_a_latecomer_has_its_time_from_its_arrival_on(
    call: MakeCall, runs: Runs, autojump_clock: MockClock
) -> None:
    runs.begin.set()
    early = await call().begin(timeout_s=10)
    await trio.sleep(8)
    late = await call().begin(timeout_s=10)
    await trio.sleep(20)
    assert (early.ended_at, late.ended_at) == (10, 18)
    assert late.result is not None
    assert late.result.error == "Timed out after 18 s."


async def test_time_in_line_does_not_count(
    call: MakeCall, runs: Runs, autojump_clock: MockClock
) -> None:
    calls = [await call().begin(timeout_s=10), await call().begin(timeout_s=20)]
    await trio.sleep(500)
    runs.begin.set()
    await trio.sleep(100)
    assert [c.ended_at for c in calls] == [510, 520]


async def test_the_limit_comes_back_when_the_patient_caller_leaves(
    call: MakeCall, runs: Runs, autojump_clock: MockClock
) -> None:
    runs.begin.set()
    hasty, patient = await call().begin(timeout_s=10), await call().begin(timeout_s=100)
    patient.scope.cancel()
    await trio.sleep(50)
    assert hasty.ended_at == 10
    assert hasty.result is not None
    assert hasty.result.error == "Timed out after 10 s."


async def test_the_time_of_all_callers_is_paused_while_a_person_is_asked(
    call: MakeCall, runs: Runs, autojump_clock: MockClock
) -> None:
    runs.begin.set()
    patient = await call().begin(40)
    hasty = await call().begin(20)
    await trio.sleep(10)
    with runs.limits[0].paused():
        await trio.sleep(1000)
        late = await call().begin(15)
        await trio.sleep(1000)
    await trio.sleep(31)
    assert (hasty.ended_at, late.ended_at) == (2020, 2025)
    assert patient.ended_at == 2040
    assert patient.result is not None
    assert patient.result.error == "Timed out after 40 s."


async def test_nobody_joins_a_run_whose_time_is_up(
    call: MakeCall, runs: Runs, autojump_clock: MockClock
) -> None:
    runs.begin.set()
    await call().begin(timeout_s=10)
    runs.limits[0].scope.cancel()
    await call().begin(timeout_s=10)
    assert runs.started == 2


async def test_cancelling_a_caller_waits_for_the_end_of_its_run(sharing: SingleFlight) -> None:
    ended = trio.Event()

    async def stubborn(on_progress: OnProgress, limit: TimeLimit) -> DispatchResult:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.lowlevel.checkpoint()
                ended.set()

    with trio.move_on_after(0.01):
        await sharing.answer(plan(), ignore_progress, stubborn)
    assert ended.is_set()


def frames_of(error: BaseException) -> int:
    return len(traceback.extract_tb(error.__traceback__))


class DetailedError(DispatchError):
    """Cannot be made again from its arguments."""

    def __init__(self, name: str, *, near: list[str]) -> None:
        super().__init__(f"{name} is unknown")
        self.near = near


FAILURES = [
    DetailedError("infra", near=["infrared"]),
    DispatchError("cannot be recorded"),
    ZeroDivisionError("a bug"),
    FileNotFoundError(2, "No such file", "/nowhere"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"),
    ExceptionGroup("several", [ValueError("one"), KeyError("two")]),
    KeyError("key"),
]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
async def test_each_caller_gets_a_failure_of_its_own(
    sharing: SingleFlight, runs: Runs, failure: Exception
) -> None:
    raised: list[Exception] = []

    async def ask() -> None:
        try:
            await sharing.answer(plan(), ignore_progress, runs.start)
        except Exception as error:
            error.add_note("of one caller")
            raised.append(error)

    failure.add_note("of the run")
    runs.outcome = failure
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        runs.begin.set()
        runs.finish.set()
    assert runs.started == 1
    assert len({id(error) for error in raised}) == 5
    assert {type(error) for error in raised} == {type(failure)}
    assert {str(error) for error in raised} == {str(failure)}
    assert all(error.args == failure.args for error in raised)
    assert len({frames_of(error) for error in raised}) == 1
    assert [error.__notes__ for error in raised] == [["of the run", "of one caller"]] * 5
    assert all(getattr(error, "near", None) == getattr(failure, "near", None) for error in raised)


async def test_a_bug_while_the_last_caller_leaves_is_raised(sharing: SingleFlight) -> None:
    async def start(on_progress: OnProgress, limit: TimeLimit) -> DispatchResult:
        try:
            await trio.sleep_forever()
        finally:
            raise ZeroDivisionError("a bug")

    left = trio.CancelScope()
    left.cancel()
    with left, pytest.raises(ZeroDivisionError):
        await sharing.answer(plan(), ignore_progress, start)


async def test_a_refusal_while_the_last_caller_leaves_is_told_to_nobody(
    sharing: SingleFlight,
) -> None:
    async def start(on_progress: OnProgress, limit: TimeLimit) -> DispatchResult:
        try:
            await trio.sleep_forever()
        finally:
            raise DispatchError("cannot be recorded")

    with trio.CancelScope() as scope:
        scope.cancel()
        await sharing.answer(plan(), ignore_progress, start)
    assert scope.cancelled_caught


async def test_a_fresh_call_reads_no_answer_and_joins_no_run(
    call: MakeCall, runs: Runs, sharing: SingleFlight
) -> None:
    runs.begin.set()
    under_way = await call().begin()
    ignore: list[str] = []

    async def ask_afresh() -> DispatchResult:
        return await sharing.answer(
            plan(), lambda told: ignore.append(told.message), runs.start, CallOptions(fresh=True)
        )

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask_afresh)
        await wait_all_tasks_blocked()
        assert runs.started == 2
        runs.finish.set()
    await wait_all_tasks_blocked()
    assert under_way.result is not None
    fresh = await ask_afresh()
    assert (runs.started, fresh.cached) == (3, None)
    later = await call().begin()
    assert later.result is not None
    # The answer of a fresh call may be kept.
    assert (runs.started, later.result.cached) == (3, True)


async def test_the_answer_of_a_fresh_call_is_not_kept_past_a_clearing(
    call: MakeCall, runs: Runs, sharing: SingleFlight
) -> None:
    runs.begin.set()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            partial(sharing.answer, plan(), ignore_progress, runs.start, CallOptions(fresh=True))
        )
        await wait_all_tasks_blocked()
        sharing.clear()
        runs.finish.set()
    await call().begin()
    assert runs.started == 2
