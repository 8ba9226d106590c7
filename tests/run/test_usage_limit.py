"""Background jobs that wait for the account's limit to reset, with real processes."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import trio

from agent_dispatch.claude.fork_server import ForkServer
from agent_dispatch.core.outcome.held import end_held_run, join_runs
from agent_dispatch.core.outcome.refusal import refused
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.jobs.waiting import CancelOutcome
from agent_dispatch.model.dialogue import DialogueRequest, DialogueResult
from agent_dispatch.model.dispatch import DispatchResult, ErrorType, Evidence, Member
from agent_dispatch.model.job import Job, JobStatus
from agent_dispatch.model.message import SendOutcome
from agent_dispatch.model.next_step import CONTINUE
from agent_dispatch.run.service import Service
from tests.jobs.holders import holder_of
from tests.run.stage import SESSION, Stage, task

HOLDS = "hold_at_usage_limit = true"
LIMITED = """
def limited(resets_at):
    # As Claude Code 2.1.332 ends at the limit of a subscription.
    init()
    info = {"status": "rejected", "rateLimitType": "five_hour"}
    if resets_at is not None:
        info["resetsAt"] = resets_at
    emit(type="rate_limit_event", rate_limit_info=info)
    emit(**{"type": "result", "subtype": "success", "is_error": True, "num_turns": 1,
            "result": "limit", "session_id": SESSION, "terminal_reason": "api_error",
            "api_error_status": 429, "api_error": "usage_limit_reached",
            "model_usage_since_last_result": {"opus": {"costUSD": 0.02}}})
    sys.exit(1)
def note(text):
    with open(PLACE + "/prompts", "a") as file:
        file.write(json.dumps([text, sys.argv[1:]]) + "\\n")
def attempts():
    try:
        return len(open(PLACE + "/prompts").readlines())
    except FileNotFoundError:
        return 0
"""


@pytest.fixture
def stage(fork_server: ForkServer, tmp_path: Path) -> Stage:
    return Stage(fork_server, tmp_path)


def script(stage: Stage, body: str) -> str:
    return f"PLACE = {str(stage.directory)!r}\n{LIMITED}\n{body}"


ONCE = """
before = attempts()
note(read_turn())
if before < TIMES:
    limited(time.time() + WAIT_S if WAIT_S is not None else None)
init()
result("done", model_usage_since_last_result={"opus": {"costUSD": 0.03}})
"""


def once(stage: Stage, wait_s: float | None, times: int = 1) -> str:
    return script(stage, f"TIMES, WAIT_S = {times}, {wait_s}\n{ONCE}")


async def until_held(service: Service, job_id: str) -> Job:
    with trio.fail_after(60):
        while (job := await service.jobs.get(job_id)).held_until is None:  # noqa: ASYNC110
            assert not job.status.is_terminal, job.result
            await trio.sleep(0.02)
    return job


def prompts(stage: Stage) -> list[Any]:
    return [json.loads(line) for line in (stage.directory / "prompts").read_text().splitlines()]


async def test_a_held_job_goes_on_with_its_session(stage: Stage) -> None:
    stage.configure(settings=f"{HOLDS}\nmax_cost_per_day_usd = 1")
    async with stage.open(stage.tree(once(stage, 2))) as service:
        submitted = await service.submit(task("go"))
        held = await until_held(service, submitted.id)
        assert held.status is JobStatus.RUNNING
        assert held.held_until is not None
        assert held.held_until > time.time() - 1
        assert (await service.jobs.newest()).jobs[0].held_until == held.held_until
        with trio.fail_after(60):
            job = await service.jobs.wait(submitted.id, 60)
    assert (job.status, job.held_until) == (JobStatus.DONE, None)
    assert job.result is not None
    assert (job.result.result, job.result.cost_usd, job.result.num_turns) == ("done", 0.05, 2)
    (first, first_flags), (second, second_flags) = prompts(stage)
    assert ("go" in first, second) == (True, CONTINUE)
    assert any(flag.startswith("--session-id=") for flag in first_flags)
    assert f"--resume={SESSION}" in second_flags
    assert "--max-budget-usd=0.1" in first_flags
    assert "--max-budget-usd=0.08" in second_flags
    lines = list(JobStore(stage.directory / "jobs").ledger.lines(0))
    assert [(line.cost_usd, line.success) for line in lines] == [(0.05, True)]
    assert lines[0].model_usage is not None
    assert lines[0].model_usage["opus"].cost_usd == 0.05


async def test_a_message_to_a_held_job_is_queued_and_goes_with_its_next_turn(
    stage: Stage,
) -> None:
    body = """
before = attempts()
note(read_turn())
if before < 1:
    limited(time.time() + 4)
init()
message = json.loads(sys.stdin.readline())
for state in ("queued", "started", "completed"):
    emit(type="command_lifecycle", command_uuid=message["uuid"], state=state)
result("done with " + message["message"]["content"])
sys.stdin.read()
"""
    stage.configure(settings=HOLDS)
    async with stage.open(stage.tree(script(stage, body))) as service:
        submitted = await service.submit(task("go"))
        await until_held(service, submitted.id)
        with trio.fail_after(60):
            sending = await service.jobs.send(submitted.id, "the nodes")
            held = await service.jobs.get(submitted.id)
            job = await service.jobs.wait(submitted.id, 60)
    assert (sending.outcome, held.status) == (SendOutcome.QUEUED, JobStatus.RUNNING)
    assert job.result is not None
    assert job.result.result == "done with the nodes"
    [message] = job.messages or []
    assert message.delivered_at is not None


async def test_a_held_job_whose_words_are_to_be_kept_is_cancelled(stage: Stage) -> None:
    stage.configure(settings=HOLDS)
    async with stage.open(stage.tree(once(stage, 600))) as service:
        submitted = await service.submit(task("go"))
        await until_held(service, submitted.id)
        with trio.fail_after(60):
            outcome = await service.jobs.cancel(submitted.id, keep=True)
            job = await service.jobs.get(submitted.id)
    assert (outcome, job.status) == (CancelOutcome.CANCELLED, JobStatus.CANCELLED)
    assert job.result is not None
    assert job.result.session_id == SESSION


async def test_a_held_job_has_no_slot_and_keeps_its_session(stage: Stage) -> None:
    stage.configure(settings=f"{HOLDS}\nmax_concurrency = 1")
    async with stage.open(stage.tree(once(stage, 600))) as service:
        submitted = await service.submit(task("go"))
        await until_held(service, submitted.id)
        with trio.fail_after(60):
            other = await service.dispatch(task("another"))
        assert other.success
        locks = os.listdir(stage.directory / "jobs" / "sessions")
        assert len(locks) == 1
        assert await service.jobs.cancel(submitted.id) is CancelOutcome.CANCELLED
        job = await service.jobs.get(submitted.id)
    assert (job.status, job.held_until) == (JobStatus.CANCELLED, None)
    assert job.result is not None
    assert (job.result.session_id, job.result.cost_usd) == (SESSION, 0.02)
    assert "while it waited" in (job.error or "")
    lines = {line.job_id: line for line in JobStore(stage.directory / "jobs").ledger.lines(0)}
    line = lines[submitted.id]
    assert (line.error_type, line.cost_usd, len(lines)) == ("cancelled", 0.02, 2)


async def test_what_a_resumed_run_starts_does_not_end_with_what_the_first_one_left(
    stage: Stage,
) -> None:
    stage.configure(settings=HOLDS)
    body = once(stage, 1).replace("limited(time", "fork_away('setsid', 'quiet'); limited(time")
    marker = f"{str(stage.directory / 'jobs' / 'live')!r} + '/' + os.environ['AGENT_DISPATCH_JOB']"
    body = body.replace('result("done"', f"result(str(os.path.exists({marker} + '.ending'))")
    async with stage.open(stage.tree(body)) as service:
        submitted = await service.submit(task("go"))
        with trio.fail_after(60):
            job = await service.jobs.wait(submitted.id, 60)
    assert job.result is not None
    assert (job.result.result, job.result.left_running) == ("False", 1)


async def test_the_last_of_max_holds_is_the_last(stage: Stage) -> None:
    stage.configure(settings=f"{HOLDS}\nmax_holds = 2")
    async with stage.open(stage.tree(once(stage, 0, times=99))) as service:
        submitted = await service.submit(task("go"))
        with trio.fail_after(60):
            job = await service.jobs.wait(submitted.id, 60)
    assert (job.status, job.error_type) == (JobStatus.FAILED, ErrorType.USAGE_LIMIT)
    assert job.result is not None
    assert job.result.resets_at is not None
    assert len(prompts(stage)) == 3


@pytest.mark.parametrize(
    ("settings", "wait_s", "in_background"),
    [("", 600, True), (HOLDS, None, True), (HOLDS, 600, False)],
    ids=["not asked for", "reset not known", "a call"],
)
async def test_otherwise_a_limit_ends_the_run_at_once(
    stage: Stage, settings: str, wait_s: float | None, in_background: bool
) -> None:
    stage.configure(settings=settings)
    with trio.fail_after(60):
        async with stage.open(stage.tree(once(stage, wait_s))) as service:
            if in_background:
                job = await service.jobs.wait((await service.submit(task("go"))).id, 60)
                result = job.result
            else:
                result = await service.dispatch(task("go"))
    assert result is not None
    assert (result.error_type, result.resets_at is None) == (
        ErrorType.USAGE_LIMIT,
        wait_s is None,
    )
    assert len(prompts(stage)) == 1


async def test_a_held_job_whose_worker_is_killed_is_lost(stage: Stage) -> None:
    stage.configure(settings=HOLDS)
    async with stage.open(stage.tree(once(stage, 600))) as service:
        submitted = await service.submit(task("go"))
        await until_held(service, submitted.id)
        os.kill(holder_of(stage.directory / "jobs", submitted.id, "worker"), signal.SIGKILL)
        with trio.fail_after(60):
            job = await service.jobs.wait(submitted.id, 60)
    assert (job.error_type, job.held_until) == (ErrorType.LOST, None)
    store = JobStore(stage.directory / "jobs")
    store.ledger.recover()
    (line,) = store.ledger.lines(0)
    assert (line.error_type, line.cost_usd) == ("lost", None)


def result(**fields: Any) -> DispatchResult:
    given: dict[str, Any] = {"agent": "infra", "success": False, "result": ""}
    return DispatchResult(**given | fields)


def test_two_runs_of_one_dispatch_are_one_result() -> None:
    before = result(
        session_id="s",
        cost_usd=0.1,
        num_turns=2,
        duration_ms=5,
        denied_tools=["Bash"],
        evidence=Evidence(
            tool_calls=2, tools={"Write": 2}, files_changed=["a"], commits=["1"], read_only=False
        ),
        error="limit",
        error_type=ErrorType.USAGE_LIMIT,
        resets_at="then",
    )
    after = result(
        success=True,
        result="done",
        cost_usd=0.2,
        num_turns=1,
        duration_ms=7,
        denied_tools=["Write", "Bash"],
        evidence=Evidence(tool_calls=1, tools={"Write": 1}, files_changed=["b"], read_only=True),
    )
    both = join_runs(before, after, 0.25)
    assert (both.success, both.result, both.session_id) == (True, "done", "s")
    assert (both.cost_usd, both.num_turns, both.duration_ms) == (0.3, 3, 12)
    assert (both.denied_tools, both.budget_exceeded) == (["Bash", "Write"], True)
    assert (both.error, both.resets_at) == (None, None)
    assert both.evidence == Evidence(
        tool_calls=3,
        tools={"Write": 3},
        files_changed=["a", "b"],
        commits=["1"],
        read_only=False,
    )
    unknown = join_runs(before, result(cost_usd=None), None)
    assert unknown.cost_usd is None
    ended = end_held_run(before, refused("infra", "gone", ErrorType.NOT_FOUND))
    assert (ended.cost_usd, ended.error, ended.error_type) == (0.1, "gone", ErrorType.NOT_FOUND)


PAIR = """
me = os.path.basename(os.getcwd())
SESSION = SESSION[:-1] + ("1" if me == "asks" else "2")
first = True
while line := sys.stdin.readline():
    text = json.loads(line)["message"]["content"]
    before = attempts()
    note(text)
    if before == 1:
        # As with stdin open: the process stays, and takes further lines.
        init()
        emit(type="rate_limit_event", rate_limit_info={"status": "rejected",
             "resetsAt": time.time() + WAIT_S})
        emit(**{"type": "result", "subtype": "success", "is_error": True, "num_turns": 1,
                "result": "limit", "session_id": SESSION, "terminal_reason": "api_error",
                "api_error_status": 429, "api_error": "usage_limit_reached",
                "model_usage_since_last_result": {"opus": {"costUSD": 0.02}}})
        continue
    init()
    last = "[RESOLVED]" if before == 3 else "which?"
    result(last, model_usage_since_last_result={"opus": {"costUSD": 0.01}})
"""


def configure_pair(stage: Stage) -> None:
    tables = ""
    for name in ("asks", "knows"):
        (stage.directory / name).mkdir()
        tables += f'[agents.{name}]\ndirectory = "{stage.directory / name}"\ntimeout = 60\n'
    (stage.directory / "agents.toml").write_text(f"{tables}[settings]\n{HOLDS}\n")


async def test_a_held_dialogue_goes_on_with_both_sessions(stage: Stage) -> None:
    configure_pair(stage)
    request = DialogueRequest(requester="asks", responder="knows", topic="why")
    tree = stage.tree(script(stage, f"WAIT_S = 1\n{PAIR}"))
    async with stage.open(tree) as service:
        with trio.fail_after(60):
            done = await service.dialogue_detached(request)
    assert done.resolved, done
    assert [turn.message for turn in done.conversation] == ["which?", "which?", "[RESOLVED]"]
    assert [turn.cost_usd for turn in done.conversation] == [0.01, 0.03, 0.01]
    resumed = [flags for _, flags in prompts(stage)][2:]
    assert all(any(flag.startswith("--resume=") for flag in flags) for flags in resumed)
    assert prompts(stage)[2][0] == CONTINUE
    lines = {line.agent: line for line in JobStore(stage.directory / "jobs").ledger.lines(0)}
    assert {name: line.cost_usd for name, line in lines.items()} == {"asks": 0.03, "knows": 0.02}


async def test_a_dialogue_can_be_cancelled_while_it_is_held(stage: Stage) -> None:
    configure_pair(stage)
    request = DialogueRequest(requester="asks", responder="knows", topic="why")
    tree = stage.tree(script(stage, f"WAIT_S = 600\n{PAIR}"))
    done: list[DialogueResult] = []

    async def talk(service: Service) -> None:
        done.append(await service.dialogue_detached(request))

    async with stage.open(tree) as service:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(talk, service)
                while not (jobs := (await service.jobs.newest()).jobs):  # noqa: ASYNC110
                    await trio.sleep(0.02)
                await until_held(service, jobs[0].id)
                assert tree.living() == []
                assert await service.jobs.cancel(jobs[0].id) is CancelOutcome.CANCELLED
    (result,) = done
    assert result.error_type is ErrorType.CANCELLED
    assert "while it waited" in (result.error or "")
    assert result.total_cost_usd == 0.03


async def test_a_member_of_a_background_group_is_held(stage: Stage) -> None:
    stage.configure(settings=HOLDS)
    members = [Member(request=task("go"))]
    async with stage.open(stage.tree(once(stage, 1))) as service:
        with trio.fail_after(60):
            group = await service.parallel_detached(members)
            assert group.members is not None
            (job,) = [await service.jobs.get(job_id) for job_id in group.members]
    assert job.result is not None
    assert (job.status, job.result.result, job.result.cost_usd) == (JobStatus.DONE, "done", 0.05)
    assert job.tree == group.tree
