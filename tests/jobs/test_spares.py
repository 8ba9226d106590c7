"""Files of jobs that are over become those of new ones, and nobody is misled by it."""

import errno
import fcntl
import os
from pathlib import Path

import pytest

from agent_dispatch.jobs.disk import Disk
from agent_dispatch.jobs.file_store import FileJobStore
from agent_dispatch.jobs.spares import Spares
from agent_dispatch.model.job import JobKind, JobStatus
from tests.jobs.support import end, ended, files_in, pending, running


@pytest.fixture
def saving(directory: Path) -> FileJobStore:
    return FileJobStore(directory, spares=2)


class CountedDisk(Disk):
    """Counts the files that are made."""

    def __init__(self) -> None:
        self.made = 0

    def open(self, path: str, flags: int) -> int:
        self.made += bool(flags & os.O_CREAT and not os.path.exists(path))
        return super().open(path, flags)

    def make_fifo(self, path: str) -> None:
        self.made += 1
        super().make_fifo(path)


def spares_in(directory: Path) -> list[Path]:
    return sorted((directory / "live").glob(".*.spare"))


def files_made_for_a_second_job(directory: Path, spares: int) -> int:
    disk = CountedDisk()
    store = FileJobStore(directory, disk=disk, spares=spares)
    ended(store)
    disk.made = 0
    ended(store)
    return disk.made


def test_a_second_job_needs_two_new_files_less(directory: Path) -> None:
    without = files_made_for_a_second_job(directory, 0)
    assert files_made_for_a_second_job(directory, 2) == without - 2


def test_no_more_are_kept_than_wanted(saving: FileJobStore, directory: Path) -> None:
    for claim in [running(saving) for _ in range(5)]:
        end(saving, claim)
    assert len(spares_in(directory)) == 2 * 2


def test_who_makes_no_jobs_keeps_no_files(
    saving: FileJobStore, store: FileJobStore, directory: Path
) -> None:
    claim = running(store)
    adopted = saving.adopt(claim.job.id, [os.dup(fd) for fd in claim.fds.to_hand_over])
    store.release(claim)
    end(saving, adopted)
    assert spares_in(directory) == []


def test_closing_removes_them(saving: FileJobStore, directory: Path) -> None:
    job_id = ended(saving)
    assert len(spares_in(directory)) == 2
    saving.close()
    assert files_in(directory) == {f"{job_id}.json"}


def test_anyone_may_take_them_for_litter(
    saving: FileJobStore, other: FileJobStore, directory: Path
) -> None:
    old = ended(saving)
    assert other.gc(7).litter == 0
    assert files_in(directory) == {f"{old}.json"}
    new = running(saving)
    assert other.settle(new.job.id).status is JobStatus.RUNNING
    saving.release(new)
    assert other.settle(new.job.id).status is JobStatus.FAILED


def test_those_of_killed_processes_are_removed_now_and_then(
    saving: FileJobStore, other: FileJobStore, directory: Path
) -> None:
    job_id = ended(saving)
    assert spares_in(directory)
    assert other.prune_calls(7).purged == []
    assert files_in(directory) == {f"{job_id}.json"}


def test_a_spare_lock_that_somebody_holds_is_left_to_them(
    saving: FileJobStore, other: FileJobStore, directory: Path
) -> None:
    ended(saving)
    holders = [os.open(path, os.O_RDWR) for path in spares_in(directory)]
    for holder in holders:
        fcntl.flock(holder, fcntl.LOCK_EX)
    claim = running(saving)
    for holder in holders:
        os.close(holder)
    assert other.settle(claim.job.id).status is JobStatus.RUNNING
    assert end(saving, claim).persisted
    saving.close()
    assert spares_in(directory) == []


def test_who_waited_at_the_end_of_one_job_is_woken_though_the_next_has_begun(
    saving: FileJobStore, other: FileJobStore
) -> None:
    first = running(saving)
    watch = other.watch(first.job.id)
    assert watch is not None
    end(saving, first)
    second = running(saving)
    assert os.read(watch, 1) == b""
    os.close(watch)
    saving.release(second)


def test_the_lock_of_the_job_before_gives_no_claim_on_this_one(
    saving: FileJobStore, other: FileJobStore
) -> None:
    first = running(saving)
    opened = os.open(other._live.path(first.job.id, ".lock"), os.O_RDWR)
    end(saving, first)
    second = pending(saving, JobKind.CALL)
    with pytest.raises(BlockingIOError):
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(opened)
    assert not other.is_held(first.job.id)
    assert other.is_held(second.job.id)
    saving.release(second)


def test_a_ring_for_the_job_before_ends_nothing(saving: FileJobStore, other: FileJobStore) -> None:
    first = running(saving)
    bell = os.open(other._live.path(first.job.id, ".bell"), os.O_WRONLY | os.O_NONBLOCK)
    end(saving, first)
    second = running(saving)
    os.write(bell, b"!")
    os.close(bell)
    assert os.read(second.fds.bell, 10) == b"!"
    assert other.cancelled_by(second.job.id) is None
    assert other.request_cancel(second.job.id, "a test")
    assert saving.cancelled_by(second.job.id) == "a test"
    saving.release(second)


def test_a_spare_takes_no_name_that_is_taken(tmp_path: Path) -> None:
    spares = Spares(str(tmp_path), ".lock", Disk())
    assert spares.take() is None
    taken, used, fresh = tmp_path / "taken", tmp_path / "used", tmp_path / "fresh"
    taken.write_text("somebody's")
    for place in (taken, fresh):
        used.write_text("")
        spares.put(str(used))
        spares.link_to(str(place))
    assert taken.read_text() == "somebody's"
    assert fresh.read_text() == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fresh", "taken"]


def test_one_that_cannot_be_moved_is_removed(tmp_path: Path) -> None:
    class FullDisk(Disk):
        def rename(self, old: str, new: str) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), new)

    spares = Spares(str(tmp_path), ".lock", FullDisk())
    assert spares.take() is None
    used = tmp_path / "used"
    used.touch()
    spares.put(str(used))
    assert spares.take() is None
    assert not used.exists()
    with pytest.raises(FileNotFoundError):
        spares.put(str(used))
