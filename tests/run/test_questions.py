"""Permission questions: to whom they go, what comes of them, and what stands still meanwhile."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from agent_dispatch.claude.fork_server import ForkServer
from agent_dispatch.core.stream.events import (
    ControlCancelRequestEvent,
    ControlRequest,
    ControlRequestEvent,
    PermissionDenial,
)
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.jobs.waiting import post
from agent_dispatch.model.config import Settings
from agent_dispatch.model.dispatch import DispatchRequest, DispatchResult, ErrorType, Progress
from agent_dispatch.model.job import Job, JobStatus
from agent_dispatch.model.question import Answer, AnsweredBy, Verdict
from agent_dispatch.run.service import Service
from tests.run.fake_claude import INIT, FakeClaude, answer
from tests.run.stage import Stage, task
from tests.run.test_dispatcher import Bench

ASK = 'permission_prompts = "ask"\n'
TOUCH = {"command": "touch a"}
ASKING = """
def ask(request_id, input, tool="Bash"):
    emit(type="control_request", request_id=request_id, request={
        "subtype": "can_use_tool", "tool_name": tool, "input": input, "tool_use_id": request_id})
def reply():
    return json.loads(sys.stdin.readline())["response"]
"""
ASKS_ONCE = ASKING + "read_turn(); init(); ask('r1', {'command': 'touch a'})\n"
ANSWERS = "result(json.dumps(reply()))"


@pytest.fixture
def stage(fork_server: ForkServer, tmp_path: Path) -> Stage:
    return Stage(fork_server, tmp_path)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


class Run:
    """One dispatch under way, as another process sees it."""

    def __init__(self, stage: Stage) -> None:
        self.store = JobStore(stage.directory / "jobs")
        self.job_id = ""
        self.result: DispatchResult | None = None
        self._begun = trio.Event()

    async def go(self, service: Service, request: DispatchRequest) -> None:
        self.result = await service.dispatch(request, self._hear)

    def _hear(self, progress: Progress) -> None:
        self.job_id = progress.job_id or self.job_id
        self._begun.set()

    async def seen(self, shows: Callable[[Job], object]) -> Job:
        """Wait until the record shows something, as any observer would."""
        await self._begun.wait()
        while not shows(job := self.store.read(self.job_id)):  # noqa: ASYNC110
            await trio.sleep(0.01)
        return job

    async def answer(self, question: str, verdict: Verdict) -> None:
        body = Answer(question=question, answer=verdict, answered_by=AnsweredBy.CLI)
        await post(self.store, self.job_id, "answer", body)


async def play(
    stage: Stage, script: str, then: Callable[[Run], Any], settings: str = ASK, **limits: Any
) -> Run:
    stage.configure(settings=settings, **limits)
    run = Run(stage)
    with trio.fail_after(60):
        async with (
            stage.open(stage.tree(script)) as service,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(run.go, service, task("go"))
            await then(run)
    return run


async def test_a_question_is_in_the_record_and_its_answer_reaches_the_agent(stage: Stage) -> None:
    async def allow(run: Run) -> None:
        job = await run.seen(lambda job: job.question)
        assert job.question is not None
        assert msgspec.to_builtins(job.question) == {
            "id": job.question.id,
            "tool": "Bash",
            "input": TOUCH,
            "asked_at": job.question.asked_at,
            "agent": "infra",
        }
        assert (job.status, job.questions) == (JobStatus.RUNNING, None)
        await run.answer("another", Verdict.DENY)
        await run.answer(job.question.id, Verdict.UNANSWERED)
        await run.answer(job.question.id, Verdict.ALLOW)

    run = await play(stage, ASKS_ONCE + ANSWERS, allow)
    assert run.result is not None
    said = json.loads(run.result.result)
    assert said == {
        "subtype": "success",
        "request_id": "r1",
        "response": {"behavior": "allow", "updatedInput": TOUCH},
    }
    job = run.store.read(run.job_id)
    assert (job.question, job.later_questions) == (None, None)
    assert job.questions is not None
    (past,) = job.questions
    assert (past.tool, past.input, past.agent) == ("Bash", TOUCH, "infra")
    assert (past.answer, past.answered_by) == (Verdict.ALLOW, AnsweredBy.CLI)
    assert past.answered_at is not None
    assert past.answered_at >= past.asked_at


async def test_a_denied_call_says_so_to_the_model(stage: Stage) -> None:
    async def deny(run: Run) -> None:
        job = await run.seen(lambda job: job.question)
        assert job.question is not None
        await run.answer(job.question.id, Verdict.DENY)
        await run.answer(job.question.id, Verdict.ALLOW)

    run = await play(stage, ASKS_ONCE + ANSWERS, deny)
    assert run.result is not None
    response = json.loads(run.result.result)["response"]
    assert response["behavior"] == "deny"
    assert "user denied" in response["message"]
    assert [past.answer for past in run.store.read(run.job_id).questions or ()] == [Verdict.DENY]


async def test_of_several_questions_each_is_answered_by_its_id(stage: Stage) -> None:
    script = (
        ASKING
        + """
read_turn(); init()
for number in range(3): ask(f"r{number}", {"n": number})
said = [reply() for number in range(3)]
result(json.dumps([[one["request_id"], one["response"]["behavior"]] for one in said]))
"""
    )

    async def allow_the_second(run: Run) -> None:
        job = await run.seen(lambda job: len(job.open_questions) == 3)
        assert job.question is not None
        assert [each.input["n"] for each in job.open_questions] == [0, 1, 2]
        await run.answer(job.open_questions[1].id, Verdict.ALLOW)
        job = await run.seen(lambda job: len(job.open_questions) == 2)
        assert [each.input["n"] for each in job.open_questions] == [0, 2]
        for each in reversed(job.open_questions):
            await run.answer(each.id, Verdict.DENY)

    run = await play(stage, script, allow_the_second)
    assert run.result is not None
    first, *others = json.loads(run.result.result)
    assert first == ["r1", "allow"]
    assert sorted(others) == [["r0", "deny"], ["r2", "deny"]]


async def test_a_question_that_the_agent_withdraws_disappears(stage: Stage) -> None:
    script = (
        ASKS_ONCE
        + """
while not os.path.exists("go"): time.sleep(0.01)
emit(type="control_cancel_request", request_id="r1"); result()
"""
    )

    async def see(run: Run) -> None:
        await run.seen(lambda job: job.question)
        (stage.directory / "go").touch()

    run = await play(stage, script, see)
    job = run.store.read(run.job_id)
    assert job.question is None
    assert [past.answer for past in job.questions or ()] == [Verdict.WITHDRAWN]


async def test_a_cancelled_job_withdraws_its_questions(stage: Stage) -> None:
    async def cancel(run: Run) -> None:
        await run.seen(lambda job: job.question)
        assert run.store.requests.cancel(run.job_id, "a test")

    run = await play(stage, ASKS_ONCE + "reply()", cancel)
    job = run.store.read(run.job_id)
    assert (job.status, job.question) == (JobStatus.CANCELLED, None)
    assert [past.answer for past in job.questions or ()] == [Verdict.WITHDRAWN]


async def test_an_agent_that_ends_with_a_question_withdraws_it(stage: Stage) -> None:
    async def see(run: Run) -> None:
        await run.seen(lambda job: job.question)
        (stage.directory / "go").touch()

    script = ASKS_ONCE + 'while not os.path.exists("go"): time.sleep(0.01)'
    run = await play(stage, script, see)
    assert [past.answer for past in run.store.read(run.job_id).questions or ()] == [
        Verdict.WITHDRAWN
    ]


@pytest.mark.parametrize("settings", ["", ASK])
async def test_the_models_own_question_belongs_into_its_answer(settings: str, stage: Stage) -> None:
    script = ASKING + "read_turn(); init(); ask('r1', {}, 'AskUserQuestion');" + ANSWERS
    run = await play(stage, script, lambda run: run.seen(lambda job: True), settings)
    assert run.result is not None
    assert json.loads(run.result.result)["response"] == {
        "behavior": "deny",
        "message": "put the question into your answer",
    }
    assert run.store.read(run.job_id).questions is None


async def test_nobody_is_asked_unless_the_configuration_says_so(stage: Stage) -> None:
    script = ASKING + "assert not any('prompt-tool' in word for word in sys.argv);"
    script += "read_turn(); init(); ask('r1', {'command': 'touch a'});" + ANSWERS
    run = await play(stage, script, lambda run: run.seen(lambda job: True), "")
    assert run.result is not None
    assert json.loads(run.result.result)["response"]["behavior"] == "deny"
    assert run.store.read(run.job_id).questions is None


async def test_the_cli_is_told_to_ask_on_its_control_pipe(stage: Stage) -> None:
    script = "read_turn(); init(); result(str('--permission-prompt-tool=stdio' in sys.argv))"
    run = await play(stage, script, lambda run: run.seen(lambda job: True))
    assert run.result is not None
    assert run.result.result == "True"


# -- in virtual time


def request(request_id: str = "r1", given: Any = TOUCH, tool: str = "Bash") -> ControlRequestEvent:
    call = ControlRequest(subtype="can_use_tool", tool_name=tool, input=given, tool_use_id="t1")
    return ControlRequestEvent(request_id=request_id, request=call)


def job_of(tmp_path: Path) -> Job:
    store = JobStore(tmp_path / "jobs")
    (row,) = store.lister.newest().jobs
    return store.read(row.id)


async def test_an_unanswered_question_is_denied_and_costs_no_time_of_the_agent(
    bench: Bench, tmp_path: Path, autojump_clock: MockClock
) -> None:
    bench.change_agent(permission_prompts="ask", timeout_s=10)
    bench.settings = Settings(question_seconds=300)
    claude = FakeClaude((1, INIT), (4, request()), (4, request("r2", {"n": 1})), (0, answer("ok")))
    result = await bench.dispatch(claude)
    assert (result.success, result.result) == (True, "ok")
    assert [reply["behavior"] for reply in claude.replies] == ["deny", "deny"]
    assert claude.replies[0]["message"] == (
        "nobody was there to allow it; finish what you can and say what is missing"
    )
    assert claude.replied_after_s == pytest.approx([305, 609], abs=1)
    past = job_of(tmp_path).questions or ()
    assert [(each.answer, each.answered_by, each.answered_at) for each in past] == [
        (Verdict.UNANSWERED, None, None)
    ] * 2


async def test_the_deadline_goes_on_where_it_stood(bench: Bench, autojump_clock: MockClock) -> None:
    bench.change_agent(permission_prompts="ask", timeout_s=10)
    claude = FakeClaude((1, INIT), (4, request()), then_hangs=True)
    result = await bench.dispatch(claude)
    assert result.error_type is ErrorType.TIMEOUT
    assert "10 s" in (result.error or "")
    assert claude.replied_after_s == pytest.approx([305], abs=1)
    assert result.duration_ms is not None
    assert result.duration_ms >= 310_000


async def test_what_is_too_large_to_show_is_denied_at_once(
    bench: Bench, tmp_path: Path, autojump_clock: MockClock
) -> None:
    deep: Any = 0
    for _ in range(500):
        deep = [deep]
    bench.change_agent(permission_prompts="ask")
    large = {"content": "x" * (5 << 20)}
    claude = FakeClaude(
        (1, INIT), (0, request("r1", large)), (0, request("r2", deep)), (0, answer("ok"))
    )
    assert (await bench.dispatch(claude)).success
    assert claude.replied_after_s == pytest.approx([1, 1], abs=0.5)
    assert [reply["behavior"] for reply in claude.replies] == ["deny", "deny"]
    assert job_of(tmp_path).questions is None


async def test_a_withdrawal_of_nothing_changes_nothing(
    bench: Bench, autojump_clock: MockClock
) -> None:
    bench.change_agent(permission_prompts="ask")
    cancel = ControlCancelRequestEvent(request_id="r1")
    claude = FakeClaude((1, INIT), (0, cancel), (0, answer("ok")))
    assert (await bench.dispatch(claude)).success


@pytest.mark.parametrize(
    ("tool", "says", "steps"),
    [
        ("Bash", "Nobody answered in time whether Bash may run.", ["agent-dispatch answer "]),
        ("AskUserQuestion", "was told to put its question into its answer", []),
    ],
)
async def test_a_hint_says_what_came_of_the_question_and_advises_no_grant(
    tool: str, says: str, steps: list[str], bench: Bench, autojump_clock: MockClock
) -> None:
    bench.change_agent(permission_prompts="ask")
    denial = PermissionDenial(tool_name=tool, tool_use_id="t1", tool_input='{"n": 1}')
    denied = msgspec.structs.replace(answer("ok"), permission_denials=(denial,))
    claude = FakeClaude((1, INIT), (0, request("r1", {"n": 1}, tool)), (0, denied))
    result = await bench.dispatch(claude)
    assert says in (result.hint or "")
    assert [step.command[:22] for step in result.next_steps or ()] == steps
