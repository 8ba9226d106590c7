"""Memory, threads, descriptors and CPU time of a program and its descendants, from `/proc`."""

import ctypes
import errno
import os
import platform
import resource
import signal
import struct
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

_TOKEN = "AGENT_DISPATCH_BENCH_TOKEN"


class Tree:
    """All processes started by one program, found by a variable in their environment.

    This also finds helpers that left the session or lost their parent.
    """

    def __init__(self) -> None:
        self._token = uuid.uuid4().hex

    def environ(self, base: Mapping[str, str]) -> dict[str, str]:
        """The environment to start the program with."""
        return {**base, _TOKEN: self._token}

    def pids(self) -> list[int]:
        """The processes that are alive now."""
        return [int(proc.name) for proc in self._processes()]

    def pids_of(self, program: str) -> list[int]:
        """The processes that run `program`, which may be a script."""
        return [pid for pid in self.pids() if program in command_line_of(pid)[:3]]

    def pids_named(self, *names: str) -> list[int]:
        """The processes with one of these names."""
        return [pid for pid in self.pids() if _text(pid, "comm").strip() in names]

    def threads(self) -> int:
        """The threads of all processes."""
        return sum(threads_of(pid) for pid in self.pids())

    def wake_ups(self) -> int:
        """How often the threads have gone to sleep so far."""
        statuses = (status for proc in self._processes() for status in proc.glob("task/*/status"))
        return sum(numbers_in(status).get("voluntary_ctxt_switches", 0) for status in statuses)

    def kill(self) -> None:
        """Kill every process that is left."""
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _processes(self) -> Iterator[Path]:
        entry = f"{_TOKEN}={self._token}".encode()
        for proc in Path("/proc").glob("[0-9]*"):
            # A process that has ended or belongs to another user is not in the tree.
            with suppress(OSError):
                if entry in (proc / "environ").read_bytes().split(b"\0"):
                    yield proc


def rss_mib(pids: Iterable[int]) -> float:
    """Resident memory of all processes."""
    return _sum(pids, "smaps_rollup", "Rss") / 1024


def pss_mib(pids: Iterable[int]) -> float:
    """Proportional memory of all processes: a page shared by n of them counts 1/n for each."""
    return _sum(pids, "smaps_rollup", "Pss") / 1024


def peak_mib(pids: Iterable[int]) -> float:
    """The sum of each process's highest resident memory."""
    return _sum(pids, "status", "VmHWM") / 1024


def reset_peaks(pids: Iterable[int]) -> None:
    """Make `peak_mib` count from now (proc(5), clear_refs)."""
    for pid in pids:
        with suppress(OSError):
            Path(f"/proc/{pid}/clear_refs").write_text("5")


def command_line_of(pid: int) -> list[str]:
    """The words of a process's command line; none if it has ended."""
    return _text(pid, "cmdline").split("\0")


def threads_of(pid: int) -> int:
    """The threads of a process; 0 if it has ended."""
    return _sum([pid], "status", "Threads")


def open_files_of(pid: int) -> int:
    """The number of open descriptors of a process."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def open_files_limit_of(pid: int) -> int:
    """The soft limit on open descriptors of a process."""
    return resource.prlimit(pid, resource.RLIMIT_NOFILE)[0]


def _sum(pids: Iterable[int], file: str, field: str) -> int:
    return sum(numbers_in(Path(f"/proc/{pid}/{file}")).get(field, 0) for pid in pids)


def numbers_in(path: Path) -> dict[str, int]:
    """The lines `Name: 123 kB` of a file in `/proc`; nothing if the process has ended."""
    numbers = {}
    with suppress(OSError):
        for line in path.read_text().splitlines():
            name, _, value = line.partition(":")
            words = value.split()
            if words and words[0].isdecimal():
                numbers[name] = int(words[0])
    return numbers


def _text(pid: int, file: str) -> str:
    try:
        return Path(f"/proc/{pid}/{file}").read_text(errors="replace")
    except OSError:
        return ""


_PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241}
_TYPE_SOFTWARE, _TASK_CLOCK = 1, 1
_ATTR_SIZE = 64
# An ordinary user may only count without kernel and hypervisor (perf_event_paranoid 2). A clock
# counts the same time either way.
_INHERIT, _EXCLUDE_KERNEL, _EXCLUDE_HV = 1 << 1, 1 << 5, 1 << 6
_CLOEXEC = 8


class CpuMeter:
    """Counts the CPU time of a process and its descendants from now on.

    `/proc` adds a dead child to its parent only if the parent waited for it, and a short-lived
    helper may end without that. The kernel's task clock follows every fork.
    """

    def __init__(self, pid: int) -> None:
        """Start counting; OSError if this machine does not allow it."""
        number = _PERF_EVENT_OPEN.get(platform.machine())
        if platform.system() != "Linux" or number is None:
            raise OSError(errno.ENOSYS, "this kind of machine has no task clock")
        flags = _INHERIT | _EXCLUDE_KERNEL | _EXCLUDE_HV
        head = struct.pack("<IIQQQQQ", _TYPE_SOFTWARE, _ATTR_SIZE, _TASK_CLOCK, 0, 0, 0, flags)
        attributes = ctypes.create_string_buffer(head, _ATTR_SIZE)
        call: Callable[..., int] = ctypes.CDLL(None, use_errno=True).syscall
        self._fd = call(number, attributes, pid, -1, -1, ctypes.c_ulong(_CLOEXEC))
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def seconds(self) -> float:
        """CPU seconds so far."""
        nanoseconds: int = struct.unpack("<Q", os.read(self._fd, 8))[0]
        return nanoseconds / 1e9

    def close(self) -> None:
        """Stop counting."""
        os.close(self._fd)


def why_not_counted() -> str | None:
    """Why CPU time cannot be counted here; None if it can."""
    try:
        CpuMeter(os.getpid()).close()
    except OSError as error:
        return error.strerror
    return None
