"""Messages to an agent at work, and the interruption that keeps what it said."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from agent_dispatch.claude.fork_server import ForkServer
from agent_dispatch.errors import InvalidRequestError
from agent_dispatch.jobs.owner import create_job
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.jobs.waiting import CancelOutcome, cancel, post, settled, wait_to_see
from agent_dispatch.model.dispatch import DispatchRequest, DispatchResult, ErrorType, Progress
from agent_dispatch.model.job import Job, JobKind, JobStatus
from agent_dispatch.model.message import MESSAGE_MAIL, MessageBody, Sending, SendOutcome
from agent_dispatch.run.run_job import JobRun, run_job
from agent_dispatch.run.send_message import send_message
from agent_dispatch.run.service import Service
from tests.claude.trees import Tree
from tests.run.stage import SESSION, Stage, task

TOLD_OF = """
def lifecycle(line_id, *states):
    for state in states:
        emit(type="command_lifecycle", command_uuid=line_id, state=state)
def read_message():
    line = json.loads(sys.stdin.readline())
    return line["message"]["content"], line["uuid"]
"""
WORKS = (
    TOLD_OF
    + """
read_turn(); init()
text, line_id = read_message()
lifecycle(line_id, "queued", "started", "completed")
result("done with: " + text)
sys.stdin.read()
"""
)


@pytest.fixture
def stage(fork_server: ForkServer, tmp_path: Path) -> Stage:
    return Stage(fork_server, tmp_path)


def _is_running(job: Job) -> bool:
    return job.status is JobStatus.RUNNING


@asynccontextmanager
async def running(stage: Stage, script: str, *, is_recorded: bool = True) -> AsyncIterator["At"]:
    """A dispatch that has begun, as its record says, and a store of another process."""
    stage.configure()
    tree: Tree = stage.tree(script)
    at = At(JobStore(stage.directory / "jobs"))
    with trio.fail_after(60):
        async with stage.open(tree) as service, trio.open_nursery() as nursery:
            nursery.start_soon(at.run, service)
            await at.begun.wait()
            if is_recorded:
                await wait_to_see(at.store, at.job_id, _is_running)
            yield at
            await at.ended.wait()
    assert tree.living() == []


class At:
    """The dispatch."""

    def __init__(self, store: JobStore) -> None:
        self.store = store
        self.begun, self.ended = trio.Event(), trio.Event()
        self.job_id = ""
        self.result: DispatchResult | None = None

    async def run(self, service: Service) -> None:
        def on_progress(progress: Progress) -> None:
            self.job_id = progress.job_id or self.job_id
            if progress.message.startswith("infra · Started Claude Code"):
                self.begun.set()

        self.result = await service.dispatch(task("go"), on_progress)
        self.ended.set()

    async def send(self, text: str, patience_s: float = 30) -> Sending:
        return await send_message(
            self.store, self.job_id, text, patience_s=patience_s, behind_s=patience_s
        )

    async def job(self) -> Job:
        return await settled(self.store, self.job_id)

    async def keep(self) -> CancelOutcome:
        return await cancel(self.store, self.job_id, by="a test", patience_s=30, keep=True)


async def test_a_message_reaches_the_running_turn_and_its_delivery_is_recorded(
    stage: Stage,
) -> None:
    async with running(stage, WORKS) as at:
        assert (await at.send("and the nodes")).outcome is SendOutcome.DELIVERED
    assert at.result is not None
    assert at.result.result == "done with: and the nodes"
    [message] = (await at.job()).messages or []
    assert message.text == "and the nodes"
    assert message.delivered_at is not None
    assert message.sent_at <= message.delivered_at
    # With a hint it is kept for no other call.
    assert "The agent got 1 message(s) while it worked" in (at.result.hint or "")


async def test_a_run_whose_record_is_not_written_yet_has_a_message_delivered(stage: Stage) -> None:
    async with running(stage, WORKS, is_recorded=False) as at:
        assert (await at.send("early")).outcome is SendOutcome.DELIVERED


async def test_messages_come_in_the_order_in_which_they_were_sent(stage: Stage) -> None:
    script = (
        TOLD_OF
        + """
read_turn(); init()
said = []
for _ in range(3):
    text, line_id = read_message()
    lifecycle(line_id, "queued")
    said.append((text, line_id))
for _, line_id in said:
    lifecycle(line_id, "started", "completed")
result(", ".join(text for text, _ in said))
sys.stdin.read()
"""
    )
    async with running(stage, script) as at:
        for text in ("a", "b"):
            assert (await at.send(text, patience_s=0)).outcome is SendOutcome.QUEUED
        assert (await at.send("c")).outcome is SendOutcome.DELIVERED
    assert at.result is not None
    assert at.result.result == "a, b, c"
    assert [m.text for m in (await at.job()).messages or ()] == ["a", "b", "c"]


async def test_a_message_behind_the_last_tool_is_a_turn_of_its_own_and_the_last_answer_wins(
    stage: Stage,
) -> None:
    script = (
        TOLD_OF
        + """
read_turn(); init()
text, line_id = read_message()
lifecycle(line_id, "queued")
result("first")
lifecycle(line_id, "started")
init()
result("second, with " + text)
lifecycle(line_id, "completed")
sys.stdin.read()
"""
    )
    async with running(stage, script) as at:
        assert (await at.send("more")).outcome is SendOutcome.DELIVERED
    assert at.result is not None
    assert at.result.result == "second, with more"
    assert at.result.earlier_results == ["first"]


async def test_stdin_is_open_while_a_background_task_runs_behind_the_answer(stage: Stage) -> None:
    script = (
        TOLD_OF
        + """
read_turn(); init()
emit(type="system", subtype="background_tasks_changed", tasks=[{"task_id": "b1"}])
result("first")
text, line_id = read_message()
lifecycle(line_id, "queued", "started")
init()
emit(type="system", subtype="background_tasks_changed", tasks=[])
result("second, with " + text)
lifecycle(line_id, "completed")
sys.stdin.read()
"""
    )
    async with running(stage, script) as at:
        assert (await at.send("more")).outcome is SendOutcome.DELIVERED
    assert at.result is not None
    assert at.result.result == "second, with more"


async def test_a_cli_that_does_not_tell_of_lines_is_waited_for_a_moment_only(stage: Stage) -> None:
    script = (
        TOLD_OF
        + """
read_turn(); init()
read_message()
result("first")
sys.stdin.read()
"""
    )
    async with running(stage, script) as at:
        assert (await at.send("more", patience_s=0)).outcome is SendOutcome.QUEUED
    assert at.result is not None
    assert (at.result.success, at.result.result) == (True, "first")
    [message] = (await at.job()).messages or []
    assert message.delivered_at is None


async def test_a_command_is_no_command_in_a_message(stage: Stage) -> None:
    async with running(stage, WORKS) as at:
        await at.send("/compact")
    assert at.result is not None
    assert at.result.result == "done with: Message:\n/compact"


async def test_a_job_that_has_ended_says_how_to_go_on(stage: Stage) -> None:
    async with running(stage, WORKS) as at:
        await at.send("x")
    sending = await at.send("one more thing")
    assert sending.outcome is SendOutcome.ALREADY_TERMINAL
    step = sending.next_step
    assert step is not None
    assert (step.agent, step.session_id, step.task) == ("infra", SESSION, "one more thing")
    assert len((await at.job()).messages or ()) == 1


async def test_a_job_that_ends_before_it_takes_the_message_is_terminal(stage: Stage) -> None:
    script = """
read_turn(); init()
sys.stdin.readline()
result("did not care")
os._exit(0)
"""
    async with running(stage, script) as at:
        sending = await at.send("x")
    assert sending.outcome is SendOutcome.ALREADY_TERMINAL
    [message] = (await at.job()).messages or []
    assert message.delivered_at is None


async def test_there_may_be_no_such_job(tmp_path: Path) -> None:
    sending = await send_message(JobStore(tmp_path), "0" * 32, "x")
    assert sending == Sending(job_id="0" * 32, outcome=SendOutcome.NOT_FOUND)


@pytest.mark.parametrize("text", ["", " \n", "a\0b", "half \ud800", "x" * 100_001])
async def test_a_text_that_is_no_message_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidRequestError, match="message"):
        await send_message(JobStore(tmp_path), "0" * 32, text)


async def test_a_pending_job_has_it_queued_at_once_and_delivers_it_first(tmp_path: Path) -> None:
    store, other = JobStore(tmp_path), JobStore(tmp_path)
    said: list[str] = []

    async def work(run: JobRun) -> DispatchResult:
        sending = await send_message(other, run.owned.job.id, "early")
        assert sending.outcome is SendOutcome.QUEUED
        job = await wait_to_see(other, run.owned.job.id, lambda job: bool(job.messages))
        said.extend(message.text for message in job.messages or ())
        return DispatchResult(agent="infra", success=True, result="fine")

    with trio.fail_after(30):
        await _run(store, work)
    assert said == ["early"]


async def test_a_job_of_several_agents_takes_no_messages(tmp_path: Path) -> None:
    store, other = JobStore(tmp_path), JobStore(tmp_path)

    async def work(run: JobRun) -> DispatchResult:
        job_id = run.owned.job.id
        run.owned.note(agents=["infra", "db"])
        await wait_to_see(other, job_id, lambda job: job.agents is not None)
        with pytest.raises(InvalidRequestError, match=r"several agents \(infra, db\)"):
            await send_message(other, job_id, "x")
        return DispatchResult(agent="infra", success=True, result="fine")

    with trio.fail_after(30):
        assert (await _run(store, work)).success


async def test_mail_with_an_id_that_is_none_of_ours_is_left_alone(tmp_path: Path) -> None:
    store, other = JobStore(tmp_path), JobStore(tmp_path)

    async def work(run: JobRun) -> DispatchResult:
        job_id = run.owned.job.id
        path = next((tmp_path / "live").glob("*.lock")).with_suffix(".mail")
        path.write_text('{"id":"x","kind":"message","sent_at":1,"body":{"text":"odd"}}\n')
        path.chmod(0o600)
        await post(other, job_id, MESSAGE_MAIL, MessageBody("good"))
        job = await wait_to_see(other, job_id, lambda job: bool(job.messages))
        assert [message.text for message in job.messages or ()] == ["good"]
        return DispatchResult(agent="infra", success=True, result="fine")

    with trio.fail_after(30):
        assert (await _run(store, work)).success


async def _run(
    store: JobStore, work: Callable[[JobRun], Awaitable[DispatchResult]]
) -> DispatchResult:
    request = DispatchRequest(agent="infra", task="go")
    async with create_job(store, store.new_job(request, kind=JobKind.CALL)) as owned:
        return await run_job(owned, work, lambda progress: None, on_behalf_of="a test")


TALKS = """
read_turn(); init()
emit(type="assistant", message={"content": [{"type": "text", "text": "Half is done."}]})
emit(type="assistant", message={"content": [{"type": "tool_use", "id": "t", "name": "Bash"}]})
"""
OBEYS = """
while True:
    line = json.loads(sys.stdin.readline() or '{"type": "eof"}')
    if line["type"] == "eof":
        os._exit(1)
    seen.append(line.get("request", {}).get("subtype", line["type"]))
    if seen[-1] == "interrupt":
        open("seen", "w").write(",".join(seen))
        result(subtype="error_during_execution", is_error=True, terminal_reason="aborted_tools")
"""


async def test_what_was_said_is_kept_when_a_run_is_interrupted(stage: Stage) -> None:
    async with running(stage, f"seen = []{TALKS}{OBEYS}") as at:
        assert await at.keep() is CancelOutcome.CANCELLED
    result = at.result
    assert result is not None
    assert (result.success, result.error_type) == (False, ErrorType.CANCELLED)
    assert (result.result, result.session_id) == ("Half is done.", SESSION)
    assert "Cancelled by a test." in (result.error or "")
    job = await at.job()
    assert (job.status, job.result) == (JobStatus.CANCELLED, result)
    assert await at.keep() is CancelOutcome.ALREADY_TERMINAL


async def test_an_interruption_that_ends_without_a_reason_is_one_too(stage: Stage) -> None:
    nameless = OBEYS.replace('terminal_reason="aborted_tools"', "terminal_reason=None")
    async with running(stage, f"seen = []{TALKS}{nameless}") as at:
        assert await at.keep() is CancelOutcome.CANCELLED
    assert at.result is not None
    assert (at.result.error_type, at.result.result) == (ErrorType.CANCELLED, "Half is done.")


async def test_a_queued_message_is_taken_back_before_the_interruption(stage: Stage) -> None:
    script = (
        f"{TOLD_OF}seen = []{TALKS}"
        """
text, line_id = read_message()
lifecycle(line_id, "queued")
emit(type="assistant", message={"content": [{"type": "text", "text": "I heard."}]})
"""
        f"{OBEYS}"
    )
    async with running(stage, script) as at:
        await at.send("more", patience_s=0)
        await wait_to_see(
            at.store, at.job_id, lambda job: "infra · I heard." in (job.progress or ())
        )
        assert await at.keep() is CancelOutcome.CANCELLED
    assert at.result is not None
    assert at.result.result == "I heard."
    assert (stage.directory / "seen").read_text() == "cancel_async_message,interrupt"


async def test_an_agent_that_does_not_obey_ends_all_the_same(stage: Stage) -> None:
    script = TALKS + "time.sleep(600)"
    async with running(stage, script) as at:
        assert await at.keep() is CancelOutcome.CANCELLED
    assert at.result is not None
    assert (at.result.error_type, at.result.result) == (ErrorType.CANCELLED, "Half is done.")


async def test_an_answer_that_arrived_outranks_the_interruption(stage: Stage) -> None:
    script = """
read_turn(); init()
emit(type="system", subtype="background_tasks_changed", tasks=[{"task_id": "b1"}])
result("all done")
sys.stdin.read()
"""
    async with running(stage, script) as at:
        await wait_to_see(at.store, at.job_id, lambda job: "waiting for" in str(job.progress))
        assert await at.keep() is CancelOutcome.ALREADY_TERMINAL
    assert at.result is not None
    assert (at.result.success, at.result.result) == (True, "all done")


async def test_to_keep_the_words_of_work_that_cannot_be_interrupted_is_a_plain_cancellation(
    tmp_path: Path,
) -> None:
    store, other = JobStore(tmp_path), JobStore(tmp_path)
    outcomes: list[CancelOutcome] = []

    async def work(run: JobRun) -> DispatchResult:
        run.owned.note_started()
        job_id = run.owned.job.id

        async def ask() -> None:
            await wait_to_see(other, job_id, _is_running)
            outcomes.append(await cancel(other, job_id, by="a test", patience_s=30, keep=True))

        nursery.start_soon(ask)
        await trio.sleep_forever()
        raise AssertionError

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            result = await _run(store, work)
    assert outcomes == [CancelOutcome.CANCELLED]
    assert result.error == "Cancelled by a test."


async def test_a_pending_job_is_simply_cancelled(tmp_path: Path) -> None:
    store, other = JobStore(tmp_path), JobStore(tmp_path)

    async def work(run: JobRun) -> DispatchResult:
        job_id = run.owned.job.id
        nursery.start_soon(lambda: cancel(other, job_id, by="a test", patience_s=30, keep=True))
        await trio.sleep_forever()
        raise AssertionError

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            result = await _run(store, work)
    assert result.error_type is ErrorType.CANCELLED
