import contextlib
import errno
import gc
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from agent_dispatch.jobs import record
from agent_dispatch.jobs.errors import BrokenJobError, JobStoreError, UnknownJobError
from agent_dispatch.jobs.record_files import Claim
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.model.dispatch import DispatchResult, ErrorType
from agent_dispatch.model.job import JobKind, JobStatus
from agent_dispatch.model.next_step import StepKind
from tests.jobs.support import (
    DONE,
    BusyDisk,
    FaultyDisk,
    FullDisk,
    ShortWrites,
    end,
    ended,
    files_in,
    pending,
    read_only_disk,
    running,
)

NUMBERS = [errno.EIO, errno.ENOSPC, errno.EACCES, errno.EMFILE]
LARGE = DispatchResult(agent="infra", success=True, result="r" * 300_000, session_id="5e55")


@pytest.fixture
def directory(quick_directory: Path) -> Path:
    return quick_directory


def none_left(job_id: str) -> None:
    """Search for no processes: these jobs have none."""


class Broken:
    """A world in which the n-th system call of one operation fails."""

    def __init__(self, directory: Path, fail_at: int, number: int) -> None:
        self.directory = directory
        self.disk = FaultyDisk()
        self.store = JobStore(directory, disk=self.disk, end_processes=none_left)
        self.other = JobStore(directory, end_processes=none_left)
        self._fail_at = fail_at
        self._number = number
        self.claims: list[Claim] = []

    def fails_from_here(self) -> None:
        self.disk.calls.clear()
        self.disk.number = self._number
        self.disk.fail_at = self._fail_at

    def failed(self) -> bool:
        return len(self.disk.calls) >= self._fail_at


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def worlds(directory: Path, number: int, at_least: int = 5) -> Iterator[Broken]:
    """One world for each system call of the operation."""
    # Descriptors that earlier tests left to the garbage collector are not closed meanwhile.
    gc.collect()
    for fail_at in range(1, 200):
        shutil.rmtree(directory, ignore_errors=True)
        before = open_descriptors()
        world = Broken(directory, fail_at, number)
        yield world
        for claim in world.claims:
            world.store.release(claim)
        assert open_descriptors() == before
        if not world.failed():
            assert fail_at > at_least
            return
    pytest.fail("there is no end of system calls")


@pytest.mark.parametrize("number", NUMBERS)
def test_creating_a_job_succeeds_or_leaves_nothing(number: int, directory: Path) -> None:
    for world in worlds(directory, number):
        world.fails_from_here()
        try:
            claim = pending(world.store)
        except JobStoreError:
            assert files_in(directory) == set()
        else:
            world.claims.append(claim)
            assert world.other.settle(claim.job.id) == claim.job
            assert not [name for name in files_in(directory) if name.endswith((".tmp", ".new"))]


@pytest.mark.parametrize("number", NUMBERS)
def test_an_update_leaves_the_old_record_or_the_new(number: int, directory: Path) -> None:
    for world in worlds(directory, number):
        claim = pending(world.store)
        world.claims.append(claim)
        old, new = claim.job, record.started(claim.job, 5.0)
        world.fails_from_here()
        try:
            world.store.update(claim, new)
        except JobStoreError:
            assert world.other.settle(claim.job.id) in (old, new)
        else:
            assert world.other.settle(claim.job.id) == new
        assert not [name for name in files_in(directory) if name.endswith(".tmp")]
        assert world.other.is_held(claim.job.id)


@pytest.mark.parametrize("number", NUMBERS)
def test_an_end_is_recorded_or_the_job_is_lost_and_never_goes_on(
    number: int, directory: Path
) -> None:
    for world in worlds(directory, number):
        claim = running(world.store)
        world.fails_from_here()
        finished = end(world.store, claim)
        seen = world.other.settle(claim.job.id)
        if finished.persisted:
            assert seen == finished.job
        else:
            assert finished.problem is not None
            assert seen == finished.job or seen.error_type is ErrorType.LOST
        assert finished.job.result is not None
        assert finished.job.result.result == DONE.result
        assert world.other.settle(claim.job.id) == seen
        world.other.retention.collect(1)
        assert files_in(directory) == {f"{claim.job.id}.json"}


@pytest.mark.parametrize("number", NUMBERS)
def test_a_lost_job_that_could_not_be_settled_is_settled_by_the_next_reader(
    number: int, directory: Path
) -> None:
    for world in worlds(directory, number):
        claim = running(world.store)
        world.store.release(claim)
        world.fails_from_here()
        with contextlib.suppress(JobStoreError, BrokenJobError):
            assert world.store.settle(claim.job.id).error_type is ErrorType.LOST
        assert world.other.settle(claim.job.id).error_type is ErrorType.LOST
        world.other.retention.collect(1)
        assert files_in(directory) == {f"{claim.job.id}.json"}


@pytest.mark.parametrize("number", NUMBERS)
def test_a_cancellation_is_recorded_or_refused(number: int, directory: Path) -> None:
    for world in worlds(directory, number):
        claim = running(world.other)
        world.claims.append(claim)
        world.fails_from_here()
        with contextlib.suppress(JobStoreError, BrokenJobError):
            assert world.store.requests.cancel(claim.job.id, "a test")
            assert world.other.requests.cancelled_by(claim.job.id) == "a test"
            assert os.read(claim.fds.bell, 10) == b"!"
        assert world.other.settle(claim.job.id).status is JobStatus.RUNNING


@pytest.mark.parametrize("number", NUMBERS)
def test_the_next_collection_finishes_one_that_failed(number: int, directory: Path) -> None:
    for world in worlds(directory, number):
        old, live = ended(world.other), running(world.other)
        world.claims.append(live)
        dead = running(world.other)
        world.other.release(dead)
        (directory / "live" / f".{'0' * 32}.{'1' * 16}.new").touch()
        os.close(world.other.open_log(old))
        world.fails_from_here()
        with contextlib.suppress(JobStoreError):
            world.store.retention.collect(0)
        assert world.other.settle(live.job.id) == live.job
        world.other.retention.collect(0)
        kept = {path.name for path in directory.glob("*.json")}
        assert kept == {f"{live.job.id}.json"}
        beside = {path.name.partition(".")[0] for path in (directory / "live").iterdir()}
        assert beside == {live.job.id}


@pytest.mark.parametrize("number", NUMBERS)
def test_calls_that_cannot_all_be_removed_are_removed_later(number: int, directory: Path) -> None:
    for world in worlds(directory, number):
        call, kept = ended(world.other, kind=JobKind.CALL), ended(world.other)
        world.fails_from_here()
        with contextlib.suppress(JobStoreError):
            world.store.retention.prune(0)
        world.other.retention.prune(0)
        with pytest.raises(UnknownJobError):
            world.other.read(call)
        assert world.other.settle(kept).status is JobStatus.DONE


@pytest.mark.parametrize("number", NUMBERS)
def test_a_forgotten_record_is_whole_or_gone(number: int, directory: Path) -> None:
    for world in worlds(directory, number, at_least=3):
        job_id = ended(world.other)
        world.fails_from_here()
        try:
            world.store.retention.forget(job_id)
        except (JobStoreError, BrokenJobError):
            assert world.other.settle(job_id).status is JobStatus.DONE
        else:
            with pytest.raises(UnknownJobError):
                world.other.read(job_id)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_listing_that_fails_says_so_or_shows_what_it_could_read(
    number: int, directory: Path
) -> None:
    for world in worlds(directory, number):
        ids = {ended(world.other), ended(world.other)}
        world.fails_from_here()
        with contextlib.suppress(JobStoreError):
            listing = world.store.lister.newest(status=JobStatus.DONE)
            assert {row.id for row in listing.jobs} <= ids
            assert len(listing.jobs) == 2 or listing.warnings
        rows = world.other.lister.newest(status=JobStatus.DONE).jobs
        assert {row.id for row in rows} == ids


@pytest.mark.parametrize("number", NUMBERS)
def test_a_job_that_cannot_be_taken_over_is_closed_and_lost(number: int, directory: Path) -> None:
    for world in worlds(directory, number, at_least=3):
        claim = pending(world.other)
        given = [os.dup(fd) for fd in claim.fds.to_hand_over]
        world.other.release(claim)
        world.fails_from_here()
        try:
            world.claims.append(world.store.adopt(claim.job.id, given))
        except (JobStoreError, BrokenJobError):
            assert world.other.settle(claim.job.id).error_type is ErrorType.LOST
        else:
            assert world.other.settle(claim.job.id) == claim.job


@pytest.mark.parametrize("number", NUMBERS)
def test_a_log_that_cannot_be_opened_is_an_error_and_leaks_no_descriptor(
    number: int, directory: Path
) -> None:
    for world in worlds(directory, number, at_least=3):
        job_id = ended(world.other)
        world.fails_from_here()
        with contextlib.suppress(JobStoreError):
            os.close(world.store.open_log(job_id))


def test_a_full_disk_refuses_a_job_before_it_starts(directory: Path) -> None:
    store = JobStore(directory, disk=FullDisk(100))
    with pytest.raises(JobStoreError, match="Free some space") as full:
        pending(store)
    assert [step.kind for step in full.value.next_steps] == [StepKind.REMOVE_OLD_JOBS]
    assert files_in(directory) == set()


def test_the_reserve_takes_the_end_of_a_job_on_a_full_disk(directory: Path) -> None:
    disk = FullDisk(100_000)
    store = JobStore(directory, disk=disk)
    claim = running(store)
    disk.room = 10
    assert end(store, claim).persisted
    assert store.read(claim.job.id).status is JobStatus.DONE
    assert not (directory / ".reserve").exists()
    disk.room = 10
    with pytest.raises(JobStoreError, match="No space left"):
        pending(store)
    disk.room = 100_000
    pending(store)
    assert (directory / ".reserve").stat().st_size == 64 * 1024


def test_the_beginning_is_kept_of_an_answer_that_does_not_fit_on_the_disk(directory: Path) -> None:
    disk = FullDisk(100_000)
    store = JobStore(directory, disk=disk)
    claim = running(store)
    disk.room = 10
    finished = end(store, claim, LARGE)
    assert not finished.persisted
    assert finished.problem is not None
    assert "only the first" in finished.problem
    assert finished.job.result is not None
    assert finished.job.result.result == LARGE.result
    kept = store.settle(claim.job.id)
    assert (kept.status, kept.session_id) == (JobStatus.DONE, "5e55")
    assert kept.result is not None
    assert (kept.result.truncated, kept.result.full_size) == (True, 300_000)
    assert LARGE.result.startswith(kept.result.result)


def test_the_beginning_is_kept_of_an_answer_that_exceeds_the_file_size_limit(
    directory: Path,
) -> None:
    store = JobStore(directory, disk=ShortWrites(1 << 20, 100_000))
    claim = running(store)
    finished = end(store, claim, LARGE)
    assert "ulimit -f" in (finished.problem or "")
    kept = store.settle(claim.job.id)
    assert kept.status is JobStatus.DONE
    assert kept.result is not None
    assert (kept.result.truncated, kept.result.full_size) == (True, 300_000)


@pytest.mark.parametrize("touched", [False, True])
@pytest.mark.parametrize("refusals", [1, 2, 5])
def test_an_answer_waits_for_a_free_descriptor(
    refusals: int, touched: bool, directory: Path
) -> None:
    disk = BusyDisk()
    store = JobStore(directory, disk=disk)
    claim = running(store)
    if touched:  # Then it is read before it is written.
        os.utime(directory / f"{claim.job.id}.json")
    disk.refusals = refusals
    assert end(store, claim).persisted
    assert store.settle(claim.job.id).status is JobStatus.DONE


def test_an_answer_that_gets_no_descriptor_is_reported_as_not_recorded(directory: Path) -> None:
    disk = BusyDisk()
    store = JobStore(directory, disk=disk)
    claim = running(store)
    disk.refusals = 1000
    assert "Too many open files" in (end(store, claim).problem or "")
    disk.refusals = 0
    assert store.settle(claim.job.id).error_type is ErrorType.LOST


def test_a_reserve_that_is_too_short_is_replaced(store: JobStore, directory: Path) -> None:
    pending(store)
    (directory / ".reserve").write_bytes(b"x")
    pending(store)
    assert (directory / ".reserve").stat().st_size == 64 * 1024


def test_a_read_only_directory_can_be_read(store: JobStore, directory: Path) -> None:
    done, claim, dead = ended(store), running(store), running(store)
    lockless = running(store)
    for gone in (dead, lockless):
        store.release(gone)
    (directory / "live" / f"{lockless.job.id}.lock").unlink()
    before = files_in(directory)
    reader = JobStore(directory, disk=read_only_disk())
    assert reader.settle(done).status is JobStatus.DONE
    assert reader.settle(claim.job.id).status is JobStatus.RUNNING
    # The verdict is true even if it cannot be written.
    assert reader.settle(dead.job.id).error_type is ErrorType.LOST
    assert reader.settle(lockless.job.id).error_type is ErrorType.LOST
    assert len(reader.lister.newest().jobs) == 4
    assert [job.id for job in reader.lister.newest(status=JobStatus.RUNNING).jobs] == [claim.job.id]
    assert len(reader.lister.newest(status=JobStatus.FAILED).jobs) == 2
    watch = reader.watch(claim.job.id)
    assert watch is not None
    os.close(watch)
    with pytest.raises(JobStoreError, match="cannot be recorded"):
        reader.requests.cancel(claim.job.id, "a test")
    with pytest.raises(JobStoreError, match="nothing was started"):
        pending(reader)
    assert files_in(directory) == before


def test_a_directory_that_cannot_be_made_refuses_the_job(directory: Path) -> None:
    with pytest.raises(JobStoreError, match=str(directory)):
        pending(JobStore(directory, disk=read_only_disk()))


def test_a_job_ends_in_spite_of_the_limit_of_open_files(tmp_path: Path) -> None:
    report = subprocess.run(
        [sys.executable, "-m", "tests.jobs.at_the_limit", tmp_path / "jobs"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert report.stderr == ""
    seen = msgspec.json.decode(report.stdout)
    assert 5 < seen["created"] <= 20
    assert "ulimit -n" in seen["error"]
    assert seen["leaked"] == 0
    assert seen["persisted"] == [True] * seen["created"]
    assert seen["files"] == seen["created"]


WITHOUT_ROOTS_RIGHTS = """
import os
import sys
from pathlib import Path
from agent_dispatch.errors import DispatchError
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.model.job import JobKind
from tests.jobs.support import REQUEST
if os.geteuid() == 0:
    os.setuid(65534)
try:
    store = JobStore(Path(sys.argv[1]))
    store.create(store.new_job(REQUEST, kind=JobKind.CALL))
except DispatchError as error:
    print(error)
"""


def test_a_directory_without_the_right_to_write_refuses_the_job() -> None:
    # Not below tmp_path, which only its owner may enter.
    with tempfile.TemporaryDirectory() as base:
        directory = Path(base) / "jobs"
        (directory / "live").mkdir(parents=True)
        for path in (directory / "live", directory, Path(base)):
            path.chmod(0o555)
        report = subprocess.run(
            [sys.executable, "-c", WITHOUT_ROOTS_RIGHTS, directory],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=False,
        )
        for path in (Path(base), directory, directory / "live"):
            path.chmod(0o755)
        assert "Permission denied" in report.stdout, report.stderr
        assert "Make it writable for you" in report.stdout
        assert files_in(directory) == set()
