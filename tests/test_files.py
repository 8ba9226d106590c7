"""Locks that only one process can hold, files that are replaced whole, and remedies for errors."""

import errno
import os
import stat
from pathlib import Path

import pytest

from agent_dispatch.file_locks import LockHeldError, locked, try_lock
from agent_dispatch.files import DISK, Disk, remedy, replace_file, write_new


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "a.lock")


def test_a_lock_is_held_once_and_free_when_its_last_copy_is_closed(path: str) -> None:
    lock = try_lock(path)
    assert lock is not None
    copy = os.dup(lock)
    os.close(lock)
    assert try_lock(path) is None
    os.close(copy)
    again = try_lock(path)
    assert again is not None
    os.close(again)


def test_a_lock_file_that_its_holder_has_removed_is_not_the_lock(path: str) -> None:
    class RemovedMeanwhile(Disk):
        """Between our open and our lock, the holder unlinks the file and frees the lock."""

        opened = 0

        def __getattribute__(self, name: str) -> object:
            if name == "flock" and (holder := holders.pop("holder", None)) is not None:
                os.unlink(path)
                os.close(holder)
            return super().__getattribute__(name)

    first = try_lock(path)
    assert first is not None
    holders = {"holder": first}
    lock = try_lock(path, RemovedMeanwhile())
    assert lock is not None
    assert holders == {}
    assert os.path.samestat(os.fstat(lock), os.stat(path))
    assert try_lock(path) is None
    os.close(lock)


def test_a_missing_lock_is_only_made_on_request(path: str) -> None:
    with pytest.raises(FileNotFoundError):
        try_lock(path, create=False)
    assert not os.path.exists(path)


@pytest.mark.parametrize("mask", [0o000, 0o077, 0o777])
def test_a_lock_file_is_private_whatever_the_umask(mask: int, path: str) -> None:
    before = os.umask(mask)
    try:
        lock = try_lock(path)
    finally:
        os.umask(before)
    assert lock is not None
    assert stat.S_IMODE(os.fstat(lock).st_mode) == 0o600
    os.close(lock)


@pytest.mark.parametrize("kind", ["link", "directory", "fifo"])
def test_anything_but_a_file_is_refused_as_a_lock_and_leaks_no_descriptor(
    kind: str, path: str
) -> None:
    match kind:
        case "link":
            os.symlink("elsewhere", path)
        case "directory":
            os.mkdir(path)
        case _:
            os.mkfifo(path)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match=r"symbolic links|directory|not a regular file"):
        try_lock(path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_timeout_of_a_lock_names_the_process_that_holds_it(path: str) -> None:
    with locked(path, 1), pytest.raises(LockHeldError) as caught, locked(path, 0.02):
        pytest.fail("two hold one lock")
    assert caught.value.holder == os.getpid()


def test_a_file_is_replaced_although_a_killed_writer_left_its_temporary_one(tmp_path: Path) -> None:
    file, temporary = tmp_path / "file", tmp_path / "file.tmp"
    file.write_text("old")
    temporary.write_text("half of")
    replace_file(str(file), b"new", str(temporary))
    assert file.read_text() == "new"
    assert not temporary.exists()


def test_a_new_file_never_replaces_another(path: str) -> None:
    write_new(path, b"first", DISK)
    with pytest.raises(FileExistsError):
        write_new(path, b"second", DISK)
    assert Path(path).read_bytes() == b"first"


@pytest.mark.parametrize(
    ("number", "command"),
    [
        (errno.ENOSPC, "Free some space"),
        (errno.EDQUOT, "Free some space"),
        (errno.EFBIG, "ulimit -f"),
        (errno.EMFILE, "ulimit -n 4096"),
        (errno.EIO, "dmesg"),
        (errno.EACCES, "chmod u+rw here"),
        (None, "chmod u+rw here"),
    ],
)
def test_an_errno_has_one_remedy_or_that_of_its_file(number: int | None, command: str) -> None:
    error = OSError() if number is None else OSError(number, os.strerror(number))
    assert command in remedy(error, "chmod u+rw here")
