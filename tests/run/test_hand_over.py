"""A job changes hands at one moment, whenever its submission is cancelled."""

import os
import select
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import trio

from agent_dispatch.claude.fork_server import GO, UP, ForkServer
from agent_dispatch.claude.launcher import Launcher
from agent_dispatch.jobs.listing import Listing
from agent_dispatch.model.dispatch import ErrorType
from agent_dispatch.model.job import Job, JobStatus
from agent_dispatch.run.service import Service
from agent_dispatch.worker import wait_for_go
from tests.run.stage import Stage, task

HANG = "read_turn(); init(); fork_away('setsid', 'twice'); say('up'); stay(ignore=False)"
LATE_MS = (0, 0.2, 0.5, 1, 1.5, 2, 3, 4, 6, 10, 20)
"""Before anything is sent, while the worker starts, and behind the hand-over."""


@pytest.fixture
def stage(fork_server: ForkServer, tmp_path: Path) -> Stage:
    return Stage(fork_server, tmp_path)


async def the_only_job(service: Service) -> Job:
    listing: Listing = await service.jobs.newest()
    assert len(listing.jobs) == 1
    return await service.jobs.get(listing.jobs[0].id)


async def test_who_cancels_when_the_worker_is_up_finds_the_job_cancelled(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree, scope = stage.tree(HANG), trio.CancelScope()
    start, make_pair = Launcher.start, socket.socketpair
    copies: list[socket.socket] = []

    def make_and_copy() -> tuple[socket.socket, socket.socket]:
        ours, theirs = make_pair()
        copies.append(ours.dup())
        return ours, theirs

    async def start_and_wait_until_up(
        self: Launcher, request: Mapping[str, object], fds: Sequence[int]
    ) -> None:
        await start(self, request, fds)
        poll = select.poll()
        poll.register(copies[-1], select.POLLIN)
        assert poll.poll(20_000)
        copies.pop().close()
        scope.cancel()

    async with stage.open(tree) as service:
        monkeypatch.setattr(Launcher, "start", start_and_wait_until_up)
        monkeypatch.setattr(socket, "socketpair", make_and_copy)
        with trio.fail_after(30), scope:
            await service.submit(task("go"))
        assert scope.cancelled_caught
        job = await the_only_job(service)
        await tree.gone()
    assert (job.status, job.error_type) == (JobStatus.CANCELLED, ErrorType.CANCELLED)
    assert job.started_at is None
    assert "submitter" in (job.error or "")


@pytest.mark.parametrize("way", ["forked", "slow"])
async def test_whenever_a_submission_is_cancelled_the_record_is_right(
    stage: Stage, fork_server: ForkServer, tmp_path: Path, way: str
) -> None:
    if way == "slow":
        stage = Stage(fork_server, tmp_path)
    tree = stage.tree(HANG)
    async with stage.open(tree) as service:
        known: set[str] = set()
        for late_ms in LATE_MS if way == "forked" else (0, 5, 40, 150):
            returned: Job | None = None
            with trio.fail_after(60), trio.move_on_after(late_ms / 1000):
                returned = await service.submit(task("go"))
            for row in (await service.jobs.newest()).jobs:
                if row.id in known:
                    continue
                known.add(row.id)
                job = await service.jobs.get(row.id)
                if returned is None:
                    assert (job.status, job.error_type) == (
                        JobStatus.CANCELLED,
                        ErrorType.CANCELLED,
                    )
                    await tree.gone()
                else:
                    assert job.id == returned.id
                    assert not job.status.is_terminal
                    await service.jobs.cancel(job.id)
        await tree.gone()
        assert {row.status for row in (await service.jobs.newest()).jobs} <= {JobStatus.CANCELLED}
    assert not os.listdir(stage.directory / "jobs" / "live")


@pytest.mark.parametrize(
    ("said", "goes"), [(GO, True), (b"", False), (b"no", False)], ids=["go", "nothing", "else"]
)
def test_a_worker_runs_only_what_it_is_told_to(said: bytes, goes: bool) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        ours.sendall(said)
        ours.shutdown(socket.SHUT_WR)
        assert wait_for_go(theirs.detach()) is goes
        assert ours.recv(10) == UP


def test_a_worker_whose_submitter_has_gone_runs_nothing() -> None:
    ours, theirs = socket.socketpair()
    ours.close()
    assert not wait_for_go(theirs.detach())


async def test_a_submission_to_a_stopped_fork_server_can_be_cancelled(
    tmp_path: Path,
) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    stage = Stage(ForkServer(ours), tmp_path)
    tree = stage.tree(HANG)
    async with stage.open(tree) as service:
        with trio.fail_after(20), trio.move_on_after(0.3):
            await service.submit(task("go"))
        job = await the_only_job(service)
        # What goes on reading later reads of a job that is over, and that nobody tells to go.
        theirs.close()
    ours.close()
    assert job.status is JobStatus.CANCELLED
    assert tree.living() == []
