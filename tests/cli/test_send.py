"""`send`, `cancel --keep`, and what they say of jobs that have ended."""

import threading
import time

import msgspec
import pytest
import trio

from agent_dispatch.jobs.owner import create_job
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.model.dispatch import DispatchRequest, DispatchResult, ErrorType
from agent_dispatch.model.job import JobKind
from agent_dispatch.run.run_job import JobRun, run_job
from tests.cli.support import World
from tests.jobs.support import DONE, ended

SESSION = "11111111-2222-4333-8444-555555555555"
REQUEST = DispatchRequest(agent="infra", task="go")
CANCELLED = DispatchResult(
    agent="infra",
    success=False,
    result="half",
    error="Cancelled.",
    error_type=ErrorType.CANCELLED,
)


@pytest.fixture
def store(world: World) -> JobStore:
    return JobStore(world.config.parent / "jobs")


class Owner:
    """A job at work in a thread; it takes no messages, and obeys an interruption."""

    def __init__(self, store: JobStore, *, begins: bool = True) -> None:
        self._begins = begins
        self._ready = threading.Event()
        self.job_id = ""
        self.interrupted_by = ""
        self._thread = threading.Thread(target=trio.run, args=(self._own, store))

    async def _own(self, store: JobStore) -> None:
        async def work(run: JobRun) -> DispatchResult:
            interrupted = trio.Event()

            def interrupt(by: str) -> None:
                self.interrupted_by = by
                interrupted.set()

            if self._begins:
                run.interrupt = interrupt
                run.owned.note_started()
            self._ready.set()
            await interrupted.wait()
            return CANCELLED

        async with create_job(store, store.new_job(REQUEST, kind=JobKind.CALL)) as owned:
            self.job_id = owned.job.id
            await run_job(owned, work, lambda progress: None, on_behalf_of="a test")

    def __enter__(self) -> "Owner":
        self._thread.start()
        assert self._ready.wait(30)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._thread.join(30)
        assert not self._thread.is_alive()


def test_a_pending_job_has_the_message_queued_and_ends_when_it_is_cancelled(
    world: World, store: JobStore
) -> None:
    with Owner(store, begins=False) as owner:
        assert world.run("send", owner.job_id[-8:], "and the nodes") == 0
        assert world.out == f"Queued for job {owner.job_id[-8:]}.\n"
        assert world.run("send", "last", "more", "--json") == 0
        assert world.answer() == {"job_id": owner.job_id, "outcome": "queued"}
        assert world.run("cancel", owner.job_id, "--keep") == 0
    assert owner.interrupted_by == ""
    world.run("job", owner.job_id)
    assert "  told            and the nodes (not delivered)\n" in world.out
    texts = [message.text for message in store.settle(owner.job_id).messages or ()]
    assert texts == ["and the nodes", "more"]


def test_a_cancellation_may_keep_what_was_said(world: World, store: JobStore) -> None:
    with Owner(store) as owner:
        deadline = time.monotonic() + 30
        while store.settle(owner.job_id).status != "running":
            assert time.monotonic() < deadline
        assert world.run("cancel", owner.job_id, "--keep") == 0
    assert world.out == f"Cancelled {owner.job_id[-8:]}.\n"
    assert owner.interrupted_by == "agent-dispatch cancel"
    job = store.settle(owner.job_id)
    assert (job.status, job.result and job.result.result) == ("cancelled", "half")


def test_a_message_to_a_job_that_has_ended_fails_with_the_command_that_goes_on(
    world: World, store: JobStore
) -> None:
    job_id = ended(store, msgspec.structs.replace(DONE, session_id=SESSION))
    assert world.run("send", job_id, "one\nmore thing") == 1
    assert world.out == ""
    assert world.err.splitlines() == [
        f"error: Job {job_id[-8:]} has ended.",
        f"tip: agent-dispatch run infra 'one more thing' --session {SESSION}",
    ]
    assert world.run("send", job_id, "x", "--json") == 1
    answer = world.answer()
    assert (answer["outcome"], answer["session_id"]) == ("already_terminal", SESSION)
    assert answer["next"] == f"agent-dispatch run infra x --session {SESSION}"


def test_a_message_needs_a_job_and_a_text(world: World, store: JobStore) -> None:
    job_id = ended(store, DONE)
    assert world.run("send") == 2
    assert world.run("send", job_id) == 2
    assert world.run("send", job_id, " ") == 1
    assert "message is empty" in world.err
    assert world.run("send", "f" * 32, "x", "--json") == 1
    assert world.answer() == {"job_id": "f" * 32, "outcome": "not_found"}
    assert world.run("send", "f" * 32, "x") == 1
    assert world.err.startswith("error: Unknown job")
