"""One odd entry in the jobs directory is reported and stops nothing else."""

import errno
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent_dispatch.jobs.errors import JobStoreError
from agent_dispatch.jobs.oddities import odd_entries
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.model.job import JobKind, JobStatus
from tests.jobs.support import Disturbed, RefusingDisk, end, ended, running

ID = "0" * 32
Make = Callable[[Path], object]


def link(path: Path) -> None:
    target = path.parent / ".elsewhere"
    target.touch()
    path.symlink_to(target)


def dangling(path: Path) -> None:
    path.symlink_to("/nowhere/at/all")


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def full_directory(path: Path) -> None:
    (path / "within").mkdir(parents=True)


def fifo(path: Path) -> None:
    os.mkfifo(path)


def unix_socket(path: Path) -> None:
    # Relative to its directory, because the whole path may be too long for an address.
    here = os.getcwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)
    finally:
        os.chdir(here)


ODD: list[Make] = [link, dangling, loop, Path.mkdir, full_directory, fifo, unix_socket]
FILES = [
    f"live/{ID}.lock",
    f"live/{ID}.cancel",
    f"live/{ID}.ending",
    f"live/{ID}.tmp",
    f"logs/{ID}.log",
    "sessions/0f0f.lock",
    "slots/0/3",
    "slots/0/waiting",
]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("make", ODD)
def test_anything_but_a_file_is_left_alone_and_reported_and_the_rest_is_removed(
    store: JobStore, directory: Path, name: str, make: Make
) -> None:
    old_call = ended(store, kind=JobKind.CALL)
    old_job = ended(store)
    (directory / "live" / f"{old_job}.tmp").touch()
    (directory / name).parent.mkdir(parents=True, exist_ok=True)
    make(directory / name)
    pruned = store.retention.prune(0)
    assert pruned.purged == [old_call]
    collected = store.retention.collect(0)
    assert (collected.purged, collected.litter) == ([old_job], 1)
    for warnings in (pruned.warnings, collected.warnings):
        assert [told for told in warnings if told.startswith(f"{name}: ")], warnings
    assert os.path.lexists(directory / name)


@pytest.mark.parametrize("suffix", [".alive", ".bell"])
@pytest.mark.parametrize("make", [link, dangling, Path.mkdir, unix_socket, Path.touch])
def test_anything_but_a_fifo_is_left_alone_and_reported_too(
    store: JobStore, directory: Path, suffix: str, make: Make
) -> None:
    job_id = ended(store)
    make(directory / "live" / f"{ID}{suffix}")
    collected = store.retention.collect(0)
    assert collected.purged == [job_id]
    assert [told for told in collected.warnings if told.startswith(f"live/{ID}{suffix}: ")]


@pytest.mark.parametrize("make", [link, dangling, loop, Path.mkdir, fifo, unix_socket])
def test_anything_but_a_file_in_place_of_a_new_lock_does_not_stop_the_rest(
    store: JobStore, directory: Path, make: Make
) -> None:
    name = f".{ID}.0123456789abcdef.new"
    job_id = ended(store, kind=JobKind.CALL)
    make(directory / "live" / name)
    pruned = store.retention.prune(0)
    assert pruned.purged == [job_id]
    assert [told for told in pruned.warnings if told.startswith(f"live/{name}: ")]


@pytest.mark.parametrize("folder", ["live", "logs", "sessions", "slots"])
@pytest.mark.parametrize("make", [Path.touch, fifo, dangling, loop])
def test_a_file_in_place_of_a_folder_does_not_stop_the_rest(
    store: JobStore, directory: Path, folder: str, make: Make
) -> None:
    job_id = ended(store)
    if (directory / folder).exists():
        (directory / folder).rename(directory / f".{folder}")
    make(directory / folder)
    collected = store.retention.collect(0)
    assert collected.purged == [job_id]
    assert [told for told in collected.warnings if told.startswith(f"{folder}: ")]


def test_unknown_names_are_reported(store: JobStore, directory: Path) -> None:
    ended(store)
    names = [
        "live/notes.txt",
        "live/.DS_Store",
        "logs/x",
        "sessions/README",
        "slots/a",
        "slots/0/b",
    ]
    for name in names:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).touch()
    told = store.retention.collect(7).warnings
    assert sorted(told) == [
        f"{name}: not a name that agent-dispatch gives; left alone" for name in sorted(names)
    ]


@pytest.mark.parametrize(
    ("uid", "mode", "reason"), [(4711, 0o600, "another user"), (0, 0, "not r")]
)
def test_foreign_and_unreadable_files_are_reported_except_to_root(
    directory: Path, monkeypatch: pytest.MonkeyPatch, uid: int, mode: int, reason: str
) -> None:
    class Borrowed(Disturbed):
        def call(self, name: str, real: Callable[..., Any], *args: Any) -> Any:
            if name != "lstat":
                return real(*args)
            fields = list(real(*args))
            if args[0].endswith(".lock"):
                fields[stat.ST_MODE] = stat.S_IFREG | mode
                fields[stat.ST_UID] = uid or 1000
            else:
                fields[stat.ST_UID] = 1000
            return os.stat_result(fields)

    (directory / "live").mkdir(parents=True)
    (directory / "live" / f"{ID}.lock").touch()
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    (odd,) = odd_entries(str(directory), Borrowed())
    assert reason in odd.warning
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert list(odd_entries(str(directory), Borrowed())) == []


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EISDIR, errno.EBUSY])
def test_a_record_that_cannot_be_removed_does_not_stop_the_rest(
    directory: Path, number: int
) -> None:
    def refuses(name: str, *args: Any) -> int:
        return number if name == "unlink" and args[0].endswith(f"{kept}.json") else 0

    kept = "none"
    store = JobStore(directory, disk=RefusingDisk(refuses))
    kept, other = ended(store), ended(store)
    collected = store.retention.collect(0)
    assert collected.purged == [other]
    assert collected.warnings == [f"{kept}.json: {os.strerror(number)}; left alone"]


def test_a_read_only_directory_is_one_error_instead_of_many_warnings(
    directory: Path,
) -> None:
    ended(JobStore(directory))
    with pytest.raises(JobStoreError, match="Read-only"):
        JobStore(
            directory, disk=RefusingDisk(lambda name, *_: errno.EROFS if name == "unlink" else 0)
        ).retention.collect(0)


@pytest.mark.parametrize("make", ODD)
def test_an_odd_marker_neither_ends_a_run_nor_keeps_a_lost_job_open(
    store: JobStore, other: JobStore, directory: Path, make: Make
) -> None:
    claim = running(store)
    mark = directory / "live" / f"{claim.job.id}.cancel"
    make(mark)
    assert other.requests.cancelled_by(claim.job.id) is None
    with pytest.raises(JobStoreError, match="cannot be recorded") as told:
        other.requests.cancel(claim.job.id, "a test")
    assert f"ls -ld {mark}" in str(told.value)
    assert "writable" not in str(told.value)
    store.release(claim)
    assert other.settle(claim.job.id).status is JobStatus.FAILED


@pytest.mark.parametrize("make", [link, dangling, loop, Path.mkdir, unix_socket])
def test_an_entry_in_place_of_a_lock_is_reported_with_a_remedy(
    store: JobStore, other: JobStore, directory: Path, make: Make
) -> None:
    claim = running(store)
    lock = directory / "live" / f"{claim.job.id}.lock"
    lock.unlink()
    make(lock)
    with pytest.raises(JobStoreError, match="not what its name says") as told:
        other.settle(claim.job.id)
    assert f"ls -ld {lock}" in str(told.value)
    assert "writable" not in str(told.value)
    end(store, claim)
    assert other.settle(claim.job.id).status is JobStatus.DONE
