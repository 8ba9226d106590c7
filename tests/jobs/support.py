"""What the tests of the job store share: requests, results, and disks that misbehave."""

import errno
import os
import signal
import time
from pathlib import Path
from typing import Any

from agent_dispatch.jobs import verdict
from agent_dispatch.jobs.disk import Disk
from agent_dispatch.jobs.file_store import FileJobStore
from agent_dispatch.jobs.store import Claim, Finished
from agent_dispatch.model.dispatch import DispatchRequest, DispatchResult, ErrorType
from agent_dispatch.model.job import JobKind

REQUEST = DispatchRequest(agent="infra", task="List the pods")
DONE = DispatchResult(agent="infra", success=True, result="Three pods", cost_usd=0.25)
FAILED = DispatchResult(
    agent="infra", success=False, result="", error="It broke.", error_type=ErrorType.CLI_ERROR
)
CANCELLED = DispatchResult(
    agent="infra", success=False, result="", error="Cancelled.", error_type=ErrorType.CANCELLED
)


def pending(store: FileJobStore, kind: JobKind = JobKind.BACKGROUND, **fields: Any) -> Claim:
    """A job that was just asked for."""
    return store.create(REQUEST, kind=kind, **fields)


def running(store: FileJobStore, kind: JobKind = JobKind.BACKGROUND, **fields: Any) -> Claim:
    """A job that runs."""
    claim = pending(store, kind, **fields)
    store.update(claim, verdict.started(claim.job, time.time()))
    return claim


def end(
    store: FileJobStore,
    claim: Claim,
    result: DispatchResult = DONE,
    *,
    now: float | None = None,
    tree_ended: bool = True,
) -> Finished:
    """Finish a job that runs."""
    job = verdict.ended(claim.job, result, time.time() if now is None else now)
    return store.finish(claim, job, tree_ended=tree_ended)


def ended(store: FileJobStore, result: DispatchResult = DONE, **fields: Any) -> str:
    """The id of a job that is over."""
    claim = running(store, **fields)
    end(store, claim, result)
    return claim.job.id


def files_in(directory: Path) -> set[str]:
    """Every file below a jobs directory but those the store keeps for itself."""
    found = (path for path in directory.rglob("*") if not path.is_dir())
    return {path.name for path in found} - {".reserve", ".index"}


class FaultyDisk(Disk):
    """Lets one call fail, and counts them; only `close` does its work all the same."""

    def __init__(self, fail_at: int = 0, number: int = errno.EIO) -> None:
        self.fail_at = fail_at
        self.number = number
        self.calls: list[str] = []

    def __getattribute__(self, name: str) -> Any:
        attribute = super().__getattribute__(name)
        if name not in vars(Disk):
            return attribute

        def counted(*args: Any) -> Any:
            self.calls.append(name)
            if len(self.calls) != self.fail_at:
                return attribute(*args)
            if name == "close":
                attribute(*args)
            raise OSError(self.number, os.strerror(self.number))

        return counted


class DyingDisk(Disk):
    """Kills its process at one call, the half of it done if it is a write."""

    def __init__(self, die_at: int) -> None:
        self.die_at = die_at
        self.calls = 0

    def __getattribute__(self, name: str) -> Any:
        attribute = super().__getattribute__(name)
        if name not in vars(Disk):
            return attribute

        def counted(*args: Any) -> Any:
            self.calls += 1
            if self.calls == self.die_at:
                if name == "write":
                    attribute(args[0], args[1][: len(args[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return attribute(*args)

        return counted


class CountingDisk(Disk):
    """Counts what is read."""

    def __init__(self) -> None:
        self.bytes_read = 0

    def read(self, fd: int, size: int) -> bytes:
        chunk = super().read(fd, size)
        self.bytes_read += len(chunk)
        return chunk


class ReluctantDisk(Disk):
    """Writes one byte at a time."""

    def write(self, fd: int, data: memoryview) -> int:
        return super().write(fd, data[:1])


class DiskWithoutFifos(Disk):
    """As some network file systems are."""

    def make_fifo(self, path: str) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM), path)


class BusyDisk(Disk):
    """Other threads have all the descriptors: so many times nothing can be opened."""

    def __init__(self) -> None:
        self.refusals = 0

    def open(self, path: str, flags: int) -> int:
        if self.refusals:
            self.refusals -= 1
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), path)
        return super().open(path, flags)


class ReadOnlyDisk(Disk):
    """A directory on a medium that takes no change."""

    def open(self, path: str, flags: int) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and not flags & os.O_DIRECTORY:
            self._refuse(path)
        return super().open(path, flags)

    def rename(self, old: str, new: str) -> None:
        self._refuse(new)

    def unlink(self, path: str) -> None:
        self._refuse(path)

    def make_directory(self, path: str) -> None:
        self._refuse(path)

    def make_fifo(self, path: str) -> None:
        self._refuse(path)

    def _refuse(self, path: str) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)


class FullDisk(Disk):
    """Has room for so many bytes; what is removed gives its room back."""

    def __init__(self, room: int) -> None:
        self.room = room

    def write(self, fd: int, data: memoryview) -> int:
        if self.room <= 0 or len(data) > self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = super().write(fd, data)
        self.room -= written
        return written

    def unlink(self, path: str) -> None:
        size = os.lstat(path).st_size
        super().unlink(path)
        self.room += size


class SmallFilesDisk(Disk):
    """Lets no file grow beyond so many bytes, as `ulimit -f` does."""

    def __init__(self, most: int) -> None:
        self.most = most

    def write(self, fd: int, data: memoryview) -> int:
        room = self.most - os.fstat(fd).st_size
        if room <= 0:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        return super().write(fd, data[:room])
