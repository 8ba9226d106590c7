import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from agent_dispatch.jobs import record
from agent_dispatch.jobs.errors import UnknownJobError
from agent_dispatch.jobs.record_files import Claim
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.model.dispatch import ErrorType
from agent_dispatch.model.job import Job, JobStatus
from tests.jobs.support import DONE, FAILED, end, files_in, pending, read_only_disk, running

ROOT = Path(__file__).parents[2]
NOBODY = "0190b5f0000070008000000000000001"


def with_session(store: JobStore) -> Job:
    """A job that was running when its owner died."""
    claim = running(store)
    store.update(claim, msgspec.structs.replace(claim.job, session_id="5e55"))
    store.release(claim)
    return claim.job


def test_a_job_whose_owner_died_is_lost_and_can_be_resumed(
    store: JobStore, other: JobStore, directory: Path
) -> None:
    before = with_session(store)
    job = other.settle(before.id)
    assert (job.status, job.error_type) == (JobStatus.FAILED, ErrorType.LOST)
    assert job.session_id == "5e55"
    assert job.result is not None
    assert job.result.job_id == before.id
    assert store.settle(before.id) == other.read(before.id) == job
    assert files_in(directory) == {f"{before.id}.json"}


def test_a_job_that_died_before_it_ran_is_lost_too(store: JobStore, other: JobStore) -> None:
    claim = pending(store)
    store.release(claim)
    job = other.settle(claim.job.id)
    assert (job.status, job.error_type, job.session_id) == ("failed", "lost", None)


def test_a_cancelled_job_whose_owner_died_is_cancelled(store: JobStore, other: JobStore) -> None:
    claim = running(store)
    assert other.requests.cancel(claim.job.id, "the CLI")
    assert other.requests.cancel(claim.job.id, "somebody else")
    store.release(claim)
    job = other.settle(claim.job.id)
    assert (job.status, job.error_type) == (JobStatus.CANCELLED, ErrorType.CANCELLED)
    assert job.error is not None
    assert "by the CLI" in job.error


def test_an_owner_that_dies_while_it_cancels_leaves_a_cancelled_job(
    store: JobStore, other: JobStore
) -> None:
    claim = running(store)
    store.mark_cancelled(claim, "its caller")
    store.mark_cancelled(claim, "somebody else")
    store.release(claim)
    job = other.settle(claim.job.id)
    assert (job.status, job.error_type) == (JobStatus.CANCELLED, ErrorType.CANCELLED)
    assert job.error is not None
    assert "by its caller" in job.error


def test_an_owner_that_cannot_mark_its_cancellation_goes_on(directory: Path) -> None:
    claim = running(JobStore(directory))
    JobStore(directory, disk=read_only_disk()).mark_cancelled(claim, "its caller")
    assert end(JobStore(directory), claim).persisted


def test_cancelling_a_job_without_an_owner_finds_it_lost(store: JobStore) -> None:
    job = with_session(store)
    assert not store.requests.cancel(job.id, "the CLI")
    assert store.settle(job.id).error_type is ErrorType.LOST


def test_cancelling_an_ended_job_changes_nothing_and_leaves_no_marker(
    store: JobStore, directory: Path
) -> None:
    claim = running(store)
    end(store, claim)
    assert not store.requests.cancel(claim.job.id, "the CLI")
    assert files_in(directory) == {f"{claim.job.id}.json"}


def test_a_job_that_is_owned_is_left_alone_however_silent_it_is(
    directory: Path, store: JobStore
) -> None:
    claim = running(store)
    record = directory / f"{claim.job.id}.json"
    os.utime(record, (0, 0))
    later = JobStore(directory, now=lambda: 4e9)
    for look in (later.settle, later.read):
        assert look(claim.job.id) == claim.job
    later.lister.newest()
    later.retention.collect(0)
    assert later.settle(claim.job.id) == claim.job


def test_a_stopped_owner_keeps_its_job(directory: Path, store: JobStore) -> None:
    owner = start_owner(directory)
    job_id = first_line(owner)
    owner.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, owner.pid, os.WSTOPPED | os.WNOWAIT)
    assert store.settle(job_id).status is JobStatus.RUNNING
    assert store.retention.collect(0).purged == []
    owner.kill()
    owner.wait()
    assert store.settle(job_id).error_type is ErrorType.LOST
    stop(owner)


def test_copied_descriptors_keep_a_job_owned(
    directory: Path, store: JobStore, other: JobStore
) -> None:
    claim = running(store)
    guard = subprocess.Popen(["sleep", "100"], pass_fds=claim.fds.for_guard)
    stranger = subprocess.Popen(["sleep", "100"], close_fds=False)
    try:
        store.release(claim)
        assert other.settle(claim.job.id).status is JobStatus.RUNNING
        guard.kill()
        guard.wait()
        # A process that was started meanwhile has inherited nothing.
        assert other.settle(claim.job.id).error_type is ErrorType.LOST
    finally:
        for process in (guard, stranger):
            process.kill()
            process.wait()


def test_an_end_with_processes_left_keeps_the_lock_until_they_are_gone(
    store: JobStore, other: JobStore, directory: Path
) -> None:
    claim = running(store)
    guards = [os.dup(fd) for fd in claim.fds.for_guard]
    end(store, claim, tree_ended=False)
    assert other.settle(claim.job.id).status is JobStatus.DONE
    assert other.is_held(claim.job.id)
    assert other.retention.collect(7).litter == 0
    for fd in guards:
        os.close(fd)
    assert not other.is_held(claim.job.id)
    assert other.retention.collect(7).litter == 3
    assert files_in(directory) == {f"{claim.job.id}.json"}


def test_a_creation_that_broke_off_before_the_record_is_no_job(
    store: JobStore, directory: Path
) -> None:
    claim = pending(store)
    (directory / f"{claim.job.id}.json").unlink()
    store.release(claim)
    with pytest.raises(UnknownJobError):
        store.settle(claim.job.id)
    store.retention.collect(7)
    assert files_in(directory) == set()


# -- jobs inside jobs


def test_a_job_ends_cancelled_with_the_one_that_started_it(
    store: JobStore, other: JobStore
) -> None:
    ways: dict[str, Callable[[Claim], object]] = {
        "its end": lambda outer: end(store, outer),
        "its owner's death": store.release,
        "its cancellation": lambda outer: other.requests.cancel(outer.job.id, "the CLI"),
        "the ending of its tree": store.mark_ending,
    }
    for name, happen in ways.items():
        outer = running(store)
        inner = running(store, parent=outer.job.id)
        store.update(inner, msgspec.structs.replace(inner.job, session_id="5e55"))
        store.release(inner)
        happen(outer)
        job = other.settle(inner.job.id)
        assert (job.status, job.session_id) == (JobStatus.CANCELLED, "5e55"), name
        assert job.error is not None
        assert outer.job.id in job.error


def test_a_job_is_cancelled_with_its_parent_while_only_the_guard_is_left_of_that(
    store: JobStore, other: JobStore
) -> None:
    outer = running(store)
    inner = running(store, parent=outer.job.id)
    guards = [os.dup(fd) for fd in outer.fds.for_guard]
    for claim in (outer, inner):
        store.release(claim)
    assert other.is_held(outer.job.id)
    assert other.settle(inner.job.id).status is JobStatus.CANCELLED
    assert other.settle(outer.job.id).status is JobStatus.RUNNING
    for fd in guards:
        os.close(fd)


def test_a_job_that_dies_while_its_parent_works_is_lost(store: JobStore, other: JobStore) -> None:
    outer = running(store)
    inner = running(store, parent=outer.job.id)
    store.release(inner)
    assert other.settle(inner.job.id).error_type is ErrorType.LOST


@pytest.mark.parametrize("parent", [NOBODY, "../../etc/passwd", ""])
def test_a_missing_parent_counts_as_ended_and_an_impossible_one_is_ignored(
    parent: str, store: JobStore, other: JobStore
) -> None:
    inner = running(store, parent=parent)
    store.release(inner)
    wanted = ErrorType.CANCELLED if parent == NOBODY else ErrorType.LOST
    assert other.settle(inner.job.id).error_type is wanted


# -- many at once


def start_owner(directory: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "tests.jobs.owners", "own", directory],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


def first_line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def stop(process: "subprocess.Popen[str]") -> None:
    with process:
        process.kill()


def test_one_of_many_processes_that_settle_at_once_records_the_end(
    directory: Path, store: JobStore
) -> None:
    jobs = [with_session(store) for _ in range(20)]
    report = subprocess.run(
        [sys.executable, "-m", "tests.jobs.owners", "settle", directory, *(j.id for j in jobs)],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    views = msgspec.json.decode(report.stdout, type=list[dict[str, Job]])
    assert len(views) == 10
    for job in jobs:
        seen = {msgspec.json.encode(view[job.id]) for view in views}
        assert seen == {msgspec.json.encode(store.read(job.id))}
    assert files_in(directory) == {f"{job.id}.json" for job in jobs}


def test_no_killed_writer_loses_or_tears_an_acknowledged_record(
    directory: Path,
) -> None:
    report = subprocess.run(
        [sys.executable, "-m", "tests.jobs.owners", "crash", directory, "60", "20260101"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    seen = msgspec.json.decode(report.stdout)
    assert seen["kills"] == 60
    assert seen["acknowledged"] > 60
    assert seen["violations"] == []


def test_a_job_is_never_seen_without_an_owner_while_it_is_handed_over(
    directory: Path, store: JobStore
) -> None:
    watcher = subprocess.Popen(
        [sys.executable, "-m", "tests.jobs.owners", "watch", directory],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    claim = running(store)
    assert watcher.stdin is not None
    with watcher:
        watcher.stdin.write(f"{claim.job.id}\n")
        watcher.stdin.flush()
        first_line(watcher)
        for _ in range(300):
            copies = [os.dup(fd) for fd in claim.fds.to_hand_over]
            adopted = store.adopt(claim.job.id, copies)
            store.release(claim)
            claim = adopted
        store.finish(claim, record.ended(claim.job, DONE, 1.0))
        looks, status = first_line(watcher).split()
    assert status == "done"
    assert int(looks) > 100


def test_a_verdict_that_was_written_before_the_power_failed_is_final(
    store: JobStore, other: JobStore, directory: Path
) -> None:
    claim = running(store)
    end(store, claim, FAILED)
    before = (directory / f"{claim.job.id}.json").read_bytes()
    # As after a crash between the final record and the removal of the live files.
    (directory / "live" / f"{claim.job.id}.lock").touch()
    (directory / "live" / f"{claim.job.id}.cancel").touch()
    assert other.settle(claim.job.id).status is JobStatus.FAILED
    assert [job.id for job in other.lister.newest(status=JobStatus.RUNNING).jobs] == []
    other.retention.collect(7)
    assert files_in(directory) == {f"{claim.job.id}.json"}
    assert (directory / f"{claim.job.id}.json").read_bytes() == before
