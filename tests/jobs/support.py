"""Shared by the tests of the job store: requests, results, and disks that misbehave."""

import errno
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from agent_dispatch.files import Disk
from agent_dispatch.jobs import record
from agent_dispatch.jobs.record_files import Claim
from agent_dispatch.jobs.store import Finished, JobStore
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


def pending(store: JobStore, kind: JobKind = JobKind.BACKGROUND, **fields: Any) -> Claim:
    """A new job."""
    return store.create(store.new_job(REQUEST, kind=kind, **fields))


def running(store: JobStore, kind: JobKind = JobKind.BACKGROUND, **fields: Any) -> Claim:
    """A running job."""
    claim = pending(store, kind, **fields)
    store.update(claim, record.started(claim.job, time.time()))
    return claim


def end(
    store: JobStore,
    claim: Claim,
    result: DispatchResult = DONE,
    *,
    now: float | None = None,
    tree_ended: bool = True,
) -> Finished:
    """Finish a running job."""
    job = record.ended(claim.job, result, time.time() if now is None else now)
    return store.finish(claim, job, tree_ended=tree_ended)


def ended(store: JobStore, result: DispatchResult = DONE, **fields: Any) -> str:
    """The id of an ended job."""
    claim = running(store, **fields)
    end(store, claim, result)
    return claim.job.id


def files_in(directory: Path) -> set[str]:
    """Every file below a jobs directory, except the reserve and the index."""
    found = (path for path in directory.rglob("*") if not path.is_dir())
    return {path.name for path in found} - {".reserve", ".index"}


class Disturbed(Disk):
    """Sends each system call through `call`."""

    def __getattribute__(self, name: str) -> Any:
        attribute = super().__getattribute__(name)
        return partial(self.call, name, attribute) if name in vars(Disk) else attribute

    def call(self, name: str, real: Callable[..., Any], *args: Any) -> Any:
        return real(*args)


def refuse(number: int, path: str | None = None) -> NoReturn:
    raise OSError(number, os.strerror(number), path)


class FaultyDisk(Disturbed):
    """Lets one call fail, and lists all calls; a failing `close` still closes."""

    def __init__(self, fail_at: int = 0, number: int = errno.EIO) -> None:
        self.fail_at = fail_at
        self.number = number
        self.calls: list[str] = []

    def call(self, name: str, real: Callable[..., Any], *args: Any) -> Any:
        self.calls.append(name)
        if len(self.calls) != self.fail_at:
            return real(*args)
        if name == "close":
            real(*args)
        refuse(self.number)


class DyingDisk(Disturbed):
    """Kills its process at one call; a write is done by half."""

    def __init__(self, die_at: int) -> None:
        self.die_at = die_at
        self.calls = 0

    def call(self, name: str, real: Callable[..., Any], *args: Any) -> Any:
        self.calls += 1
        if self.calls == self.die_at:
            if name == "write":
                real(args[0], args[1][: len(args[1]) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args)


class CountingDisk(Disturbed):
    """Counts the bytes that are read."""

    def __init__(self) -> None:
        self.bytes_read = 0

    def call(self, name: str, real: Callable[..., Any], *args: Any) -> Any:
        answer = real(*args)
        if name == "read":
            self.bytes_read += len(answer)
        return answer


class RefusingDisk(Disturbed):
    """Refuses the calls for which `refuses` returns an errno."""

    def __init__(self, refuses: Callable[..., int]) -> None:
        self._refuses = refuses

    def call(self, name: str, real: Callable[..., Any], *args: Any) -> Any:
        if number := self._refuses(name, *args):
            refuse(number, next((arg for arg in args if isinstance(arg, str)), None))
        return real(*args)


def read_only_disk() -> Disk:
    """A disk that is mounted read-only."""

    def refuses(name: str, *args: Any) -> int:
        is_change = name in {"rename", "unlink", "mkdir", "mkfifo"} or (
            name == "open"
            and args[1] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            and not args[1] & os.O_DIRECTORY
        )
        return errno.EROFS if is_change else 0

    return RefusingDisk(refuses)


class BusyDisk(Disturbed):
    """At the limit of open files: the next `refusals` files cannot be opened."""

    def __init__(self) -> None:
        self.refusals = 0

    def call(self, name: str, real: Callable[..., Any], *args: Any) -> Any:
        if name == "open" and self.refusals:
            self.refusals -= 1
            refuse(errno.EMFILE, args[0])
        return real(*args)


class FullDisk(Disturbed):
    """Has room for `room` bytes; removed files free theirs."""

    def __init__(self, room: int) -> None:
        self.room = room

    def call(self, name: str, real: Callable[..., Any], *args: Any) -> Any:
        if name == "write" and (self.room <= 0 or len(args[1]) > self.room):
            refuse(errno.ENOSPC)
        freed = os.lstat(args[0]).st_size if name == "unlink" else 0
        answer = real(*args)
        self.room += freed - (answer if name == "write" else 0)
        return answer


class ShortWrites(Disturbed):
    """Writes few bytes at a time, and lets no file grow beyond `most`, as `ulimit -f` does."""

    def __init__(self, at_once: int, most: int) -> None:
        self._at_once = at_once
        self._most = most

    def call(self, name: str, real: Callable[..., Any], *args: Any) -> Any:
        if name != "write":
            return real(*args)
        fd, data = args
        room = self._most - os.fstat(fd).st_size
        if room <= 0:
            refuse(errno.EFBIG)
        return real(fd, data[: min(room, self._at_once)])
