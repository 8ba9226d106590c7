import math
import resource
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing
from trio.testing import MockClock, wait_all_tasks_blocked

from agent_dispatch.core.command import DEPTH_VARIABLE, EXCLUSIVE_VARIABLE, MARKER_VARIABLE
from agent_dispatch.core.request.checks import check_request
from agent_dispatch.errors import InvalidRequestError
from agent_dispatch.model.config import EffectiveAgent, Settings
from agent_dispatch.model.dispatch import (
    DispatchRequest,
    DispatchResult,
    ErrorType,
    OnProgress,
    Progress,
    ignore_progress,
)
from agent_dispatch.model.next_step import StepKind
from agent_dispatch.run.limits import Limits
from agent_dispatch.run.plan import Plan
from agent_dispatch.run.runner import Runner
from agent_dispatch.run.time_limit import TimeLimit
from agent_dispatch.run.turns import OpenClaude
from tests.core.builders import agent
from tests.run.fake_claude import (
    AUTH_RETRY,
    DENIED,
    INIT,
    SESSION,
    TEXT,
    FakeClaude,
    answer,
    tasks,
)
from tests.run.stage import make_runner

ANSWER = answer("all is well")
TASK = DispatchRequest(agent="infra", task="list pods")


class Dispatcher:
    """Plans by values and runs, as a service does that reads a configuration."""

    def __init__(self, runner: Runner, limits: Limits) -> None:
        self._runner = runner
        self.tidy = limits.sessions.sweep

    async def dispatch(
        self,
        request: DispatchRequest,
        agent: EffectiveAgent,
        settings: Settings,
        on_progress: OnProgress = ignore_progress,
    ) -> DispatchResult:
        prompt = check_request(request)
        plan = Plan(request=request, agent=agent, settings=settings, prompt=prompt)
        return await self._runner.call(plan, on_progress, TimeLimit(plan.timeout_s))


class Bench:
    """A dispatcher around a fake, and one agent to dispatch to."""

    def __init__(self, tmp_path: Path) -> None:
        self._tmp_path = tmp_path
        self.environ = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "CLAUDECODE": "1"}
        self.settings = Settings()
        self.program: tuple[str, ...] | None = ("/bin/sh",)
        self.sessions = Limits(tmp_path, 0).sessions
        self.agent = agent(directory=str(tmp_path))

    def change_agent(self, **changes: object) -> None:
        self.agent = msgspec.structs.replace(self.agent, **changes)

    def change_program(self, program: str | None, *, path: str) -> None:
        if program is not None:
            Path(program).write_text("not executable")
        self.program = None if program is None else (program,)
        self.environ["PATH"] = path

    def dispatcher(self, open_claude: OpenClaude) -> Dispatcher:
        runner, limits = make_runner(
            self._tmp_path, open_claude, program=self.program, environ=self.environ
        )
        return Dispatcher(runner, limits)

    async def dispatch(
        self,
        open_claude: OpenClaude,
        request: DispatchRequest = TASK,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> DispatchResult:
        dispatcher = self.dispatcher(open_claude)
        return await dispatcher.dispatch(
            request, self.agent, self.settings, on_progress or (lambda progress: None)
        )


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


async def test_an_answer_is_a_success(bench: Bench, autojump_clock: MockClock) -> None:
    claude = FakeClaude((1, INIT), (4, ANSWER))
    result = await bench.dispatch(claude)
    assert (result.success, result.result, result.session_id) == (True, "all is well", SESSION)
    assert result.duration_ms == 5000
    assert claude.prompts == ["list pods"]
    assert claude.ended_by == []


async def test_a_result_that_arrived_outranks_the_deadline(
    bench: Bench, autojump_clock: MockClock
) -> None:
    claude = FakeClaude((1, INIT), (0, tasks(1)), (1, ANSWER), then_hangs=True)
    result = await bench.dispatch(claude)
    assert (result.success, result.result) == (True, "all is well")
    assert claude.ended_by == ["end"]
    assert trio.current_time() == pytest.approx(300)


async def test_the_deadline_is_a_timeout_with_the_session_to_resume(
    bench: Bench, autojump_clock: MockClock
) -> None:
    claude = FakeClaude((1, INIT), (1, TEXT), then_hangs=True)
    result = await bench.dispatch(claude)
    assert (result.success, result.error_type) == (False, ErrorType.TIMEOUT)
    assert result.session_id == SESSION
    assert result.next_steps is not None
    resume, longer = result.next_steps
    assert (resume.kind, resume.session_id) == (StepKind.RESUME, SESSION)
    assert longer.kind is StepKind.MORE_TIME


async def test_without_an_init_no_session_is_promised(
    bench: Bench, autojump_clock: MockClock
) -> None:
    claude = FakeClaude(then_hangs=True, obeys_interrupt=False)
    result = await bench.dispatch(claude)
    assert (result.error_type, result.session_id) == (ErrorType.TIMEOUT, None)


async def test_refused_credentials_end_the_run_at_the_second_retry(
    bench: Bench, autojump_clock: MockClock
) -> None:
    claude = FakeClaude((1, INIT), (1, AUTH_RETRY), (1, AUTH_RETRY), then_hangs=True)
    result = await bench.dispatch(claude)
    assert result.error_type is ErrorType.AUTH
    assert claude.ended_by == ["end"]
    assert trio.current_time() == pytest.approx(3)


async def test_denied_tools_come_with_the_answer(bench: Bench, autojump_clock: MockClock) -> None:
    result = await bench.dispatch(FakeClaude((0, INIT), (0, DENIED), (0, ANSWER)))
    assert (result.success, result.denied_tools) == (True, ["Bash"])
    steps = result.next_steps or ()
    assert any("agent-dispatch update infra" in step.command for step in steps)


async def test_processes_left_behind_are_told(bench: Bench, autojump_clock: MockClock) -> None:
    result = await bench.dispatch(FakeClaude((0, INIT), (0, ANSWER), left_running=2))
    assert result.left_running == 2


async def test_an_exit_without_a_result_is_a_failure_even_with_status_0(
    bench: Bench, autojump_clock: MockClock
) -> None:
    result = await bench.dispatch(FakeClaude((0, INIT)))
    assert (result.success, result.error_type) == (False, ErrorType.CLI_ERROR)


async def test_a_lost_guard_is_told(bench: Bench, autojump_clock: MockClock) -> None:
    claude = FakeClaude((0, INIT))
    claude.guard_lost = True
    result = await bench.dispatch(claude)
    assert (result.success, result.error_type) == (False, ErrorType.LOST)
    assert result.session_id == SESSION


async def test_time_in_the_queue_does_not_count(bench: Bench, autojump_clock: MockClock) -> None:
    bench.settings = Settings(max_concurrency=1)
    bench.change_agent(timeout_s=10)
    claude = FakeClaude((0, INIT), (8, ANSWER))
    dispatcher = bench.dispatcher(claude)
    results: list[DispatchResult] = []

    async def one() -> None:
        results.append(await dispatcher.dispatch(TASK, bench.agent, bench.settings))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(one)
    assert [result.success for result in results] == [True, True, True]
    assert claude.peak == 1


async def test_the_place_in_the_queue_is_progress(bench: Bench, autojump_clock: MockClock) -> None:
    bench.settings = Settings(max_concurrency=1)
    dispatcher = bench.dispatcher(FakeClaude((0, INIT), (10, ANSWER)))
    said: list[str] = []

    async def one() -> None:
        await dispatcher.dispatch(
            TASK, bench.agent, bench.settings, lambda progress: said.append(progress.message)
        )

    # Time must not jump while a thread still looks at a directory.
    autojump_clock.autojump_threshold = math.inf
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(one)
            await wait_all_tasks_blocked(0.05)
        autojump_clock.autojump_threshold = 0
    assert [line for line in said if "place" in line] == [
        "infra · Waiting for a free slot, place 1 in line",
        "infra · Waiting for a free slot, place 2 in line",
        "infra · Waiting for a free slot, place 1 in line",
    ]


async def test_a_cancelled_dispatch_frees_its_slot(bench: Bench, autojump_clock: MockClock) -> None:
    bench.settings = Settings(max_concurrency=1)
    claude = FakeClaude(then_hangs=True)
    dispatcher = bench.dispatcher(claude)
    with trio.move_on_after(5) as scope:
        await dispatcher.dispatch(TASK, bench.agent, bench.settings)
    assert scope.cancelled_caught
    assert claude.running == 0


async def test_a_dispatch_that_is_cancelled_before_its_agent_starts_is_recorded_so(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(_watch: object) -> None:
        looking.set()
        await trio.sleep_forever()

    looking = trio.Event()
    monkeypatch.setattr("agent_dispatch.run.work_tree.Watch.may_start", never)
    claude = FakeClaude()
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.dispatch, claude)
            await looking.wait()
            nursery.cancel_scope.cancel()
    assert claude.commands == []


async def test_deeper_than_allowed_is_refused_without_a_process(bench: Bench) -> None:
    claude = FakeClaude()
    for depth in ("3", "17", "garbage"):
        bench.environ[DEPTH_VARIABLE] = depth
        result = await bench.dispatch(claude)
        assert result.error_type is ErrorType.RECURSION
    assert claude.commands == []


async def test_the_run_is_marked_inside_the_marks_around_it(
    bench: Bench, autojump_clock: MockClock
) -> None:
    claude = FakeClaude((0, INIT), (0, ANSWER))
    bench.environ |= {MARKER_VARIABLE: "outer", DEPTH_VARIABLE: "1"}
    await bench.dispatch(claude)
    (command,) = claude.commands
    assert command.env[MARKER_VARIABLE].startswith("outer.")
    assert command.env[DEPTH_VARIABLE] == "2"
    assert "CLAUDECODE" not in command.env


@pytest.mark.parametrize(
    ("change", "word"),
    [({"model": "--help"}, "model"), ({"permission_mode": "-x"}, "permission-mode")],
)
async def test_a_value_that_looks_like_a_flag_is_refused(
    bench: Bench, change: dict[str, object], word: str
) -> None:
    bench.change_agent(**change)
    claude = FakeClaude()
    result = await bench.dispatch(claude)
    assert (result.success, result.error_type) == (False, ErrorType.CLI_ERROR)
    assert result.error is not None
    assert word in result.error
    assert claude.commands == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda bench, tmp: bench.change_agent(directory=str(tmp / "gone")),
        lambda bench, tmp: bench.change_program(None, path="/none"),
        lambda bench, tmp: bench.change_program(str(tmp / "claude"), path="/none"),
    ],
    ids=["no directory", "no claude on PATH", "not executable"],
)
async def test_what_is_missing_is_not_found_without_a_process(
    bench: Bench, tmp_path: Path, spoil: Callable[[Bench, Path], None]
) -> None:
    spoil(bench, tmp_path)
    claude = FakeClaude()
    result = await bench.dispatch(claude)
    assert (result.success, result.error_type) == (False, ErrorType.NOT_FOUND)
    assert claude.commands == []


async def test_a_session_is_resumed_by_one_run_at_a_time(
    bench: Bench, autojump_clock: MockClock
) -> None:
    claude = FakeClaude((0, INIT), (10, ANSWER))
    # Two dispatchers lock through descriptions of their own, as two processes do.
    dispatchers = [bench.dispatcher(claude), bench.dispatcher(claude)]
    request = msgspec.structs.replace(TASK, session_id=SESSION)
    said: list[str] = []

    async with trio.open_nursery() as nursery:
        for dispatcher in dispatchers:
            nursery.start_soon(
                dispatcher.dispatch,
                request,
                bench.agent,
                bench.settings,
                lambda progress: said.append(progress.message),
            )
    assert claude.peak == 1
    assert len(claude.commands) == 2
    assert all(f"--resume={SESSION}" in command.argv for command in claude.commands)
    assert "infra · Waiting for another run of this session to end" in said


async def test_an_exclusive_agent_has_one_run_at_a_time_and_the_others_queue(
    bench: Bench, tmp_path: Path, autojump_clock: MockClock
) -> None:
    claude = FakeClaude((0, INIT), (10, ANSWER))
    dispatchers = bench.dispatcher(claude), bench.dispatcher(claude)
    agent = msgspec.structs.replace(bench.agent, exclusive=True)
    said: list[str] = []
    async with trio.open_nursery() as nursery:
        for dispatcher in dispatchers:
            nursery.start_soon(
                dispatcher.dispatch,
                TASK,
                agent,
                bench.settings,
                lambda progress: said.append(progress.message),
            )
    assert (claude.peak, len(claude.commands)) == (1, 2)
    assert "infra · Waiting for another run of agent infra to end" in said
    assert list((tmp_path / "sessions").iterdir()) == []


async def test_an_exclusive_agent_keeps_no_slot_and_no_other_agent_waiting(
    bench: Bench, autojump_clock: MockClock
) -> None:
    claude = FakeClaude((0, INIT), (10, ANSWER))
    bench.settings = Settings(max_concurrency=2)
    exclusive = msgspec.structs.replace(bench.agent, exclusive=True)
    other = msgspec.structs.replace(bench.agent, name="db", exclusive=True)
    async with trio.open_nursery() as nursery:
        for agent in (exclusive, exclusive, exclusive, other):
            nursery.start_soon(bench.dispatcher(claude).dispatch, TASK, agent, bench.settings)
    # With a slot held while it waits, the other agent would have found none.
    assert (claude.peak, len(claude.commands)) == (2, 4)


async def test_an_exclusive_agent_below_its_own_run_is_refused(
    bench: Bench, autojump_clock: MockClock
) -> None:
    claude = FakeClaude((0, INIT), (0, ANSWER))
    agent = msgspec.structs.replace(bench.agent, exclusive=True)
    await bench.dispatcher(claude).dispatch(TASK, agent, bench.settings)
    bench.environ |= {
        EXCLUSIVE_VARIABLE: claude.commands[0].env[EXCLUSIVE_VARIABLE],
        DEPTH_VARIABLE: "1",
    }
    below = bench.dispatcher(claude)
    refused = await below.dispatch(TASK, agent, bench.settings)
    assert (refused.success, refused.error_type) == (False, ErrorType.RECURSION)
    assert "exclusive" in (refused.error or "")
    other = msgspec.structs.replace(agent, name="db")
    assert (await below.dispatch(TASK, other, bench.settings)).success
    assert claude.commands[-1].env[EXCLUSIVE_VARIABLE] == "infra,db"


async def test_other_sessions_do_not_wait(bench: Bench, autojump_clock: MockClock) -> None:
    claude = FakeClaude((0, INIT), (10, ANSWER))
    dispatcher = bench.dispatcher(claude)
    async with trio.open_nursery() as nursery:
        for session_id in (SESSION, SESSION.replace("1", "2"), None):
            request = msgspec.structs.replace(TASK, session_id=session_id)
            nursery.start_soon(dispatcher.dispatch, request, bench.agent, bench.settings)
    assert claude.peak == 3


async def test_a_session_leaves_no_lock_file(
    bench: Bench, tmp_path: Path, autojump_clock: MockClock
) -> None:
    request = msgspec.structs.replace(TASK, session_id=SESSION)
    await bench.dispatch(FakeClaude((0, INIT), (0, ANSWER)), request)
    assert not (tmp_path / "sessions" / f"{SESSION}.lock").exists()
    assert list((tmp_path / "sessions").iterdir()) == []


async def test_a_session_that_is_held_is_waited_for(
    bench: Bench, autojump_clock: MockClock
) -> None:
    waited: list[str] = []
    async with bench.sessions.hold(SESSION, list):
        with trio.move_on_after(5) as patience:
            async with bench.sessions.hold(SESSION, lambda: waited.append("told")):
                pytest.fail("two hold one session")
    assert patience.cancelled_caught
    assert waited == ["told"]


async def test_a_session_that_has_just_begun_is_resumed_when_its_run_is_over(
    bench: Bench, autojump_clock: MockClock
) -> None:
    claude = FakeClaude((0, INIT), (10, ANSWER))
    first, second = bench.dispatcher(claude), bench.dispatcher(claude)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(first.dispatch, TASK, bench.agent, bench.settings)
        await claude.begun.wait()
        begun = claude.commands[0].session_id
        assert f"--session-id={begun}" in claude.commands[0].argv
        request = msgspec.structs.replace(TASK, session_id=begun)
        nursery.start_soon(second.dispatch, request, bench.agent, bench.settings)
    assert claude.peak == 1
    assert len(claude.commands) == 2


async def test_locks_of_killed_owners_are_swept_and_those_in_use_are_not(
    bench: Bench, tmp_path: Path, autojump_clock: MockClock
) -> None:
    claude = FakeClaude((0, INIT), (10, ANSWER))
    dispatcher, other = bench.dispatcher(claude), bench.dispatcher(claude)
    other.tidy()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dispatcher.dispatch, TASK, bench.agent, bench.settings)
        await claude.begun.wait()
        (tmp_path / "sessions" / f"{SESSION}.lock").touch()
        other.tidy()
        (kept,) = (tmp_path / "sessions").iterdir()
        assert kept.name == f"{claude.commands[0].session_id}.lock"
    other.tidy()
    assert list((tmp_path / "sessions").iterdir()) == []


async def test_a_sweep_that_finds_no_descriptor_does_nothing(bench: Bench) -> None:
    async with bench.sessions.hold(SESSION, list):
        pass
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        bench.sessions.sweep()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


async def test_a_wrong_request_raises(bench: Bench) -> None:
    with pytest.raises(InvalidRequestError, match="task is empty"):
        await bench.dispatch(FakeClaude(), DispatchRequest(agent="infra", task=" \n"))


@pytest.mark.parametrize(("asked", "given"), [(None, 300), (1, 10), (60, 60), (1e9, 7200)])
def test_a_timeout_for_one_call_is_clamped(bench: Bench, asked: float | None, given: float) -> None:
    request = DispatchRequest(agent="infra", task="x", timeout_s=asked)
    plan = Plan(request=request, agent=bench.agent, settings=bench.settings, prompt="x")
    assert plan.timeout_s == given


async def test_a_claude_that_path_lacks_is_run_where_its_installer_put_it(
    bench: Bench, tmp_path: Path, autojump_clock: MockClock
) -> None:
    program = tmp_path / ".local" / "bin" / "claude"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    bench.change_program(None, path="/none")
    claude = FakeClaude((0, INIT), (0, ANSWER))
    assert (await bench.dispatch(claude)).success
    [command] = claude.commands
    assert command.argv[0] == str(program)
    assert command.env["PATH"] == f"/none:{program.parent}"
