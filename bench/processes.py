"""What `/proc` says of a program and of all that descends from it."""

import os
import signal
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

_TOKEN = "AGENT_DISPATCH_BENCH_TOKEN"


class Tree:
    """All processes that descend from one program, found by a variable in their environment.

    So helpers that left its session, or lost their parent, are counted too.
    """

    def __init__(self) -> None:
        self._token = uuid.uuid4().hex

    def environ(self, base: Mapping[str, str]) -> dict[str, str]:
        """The environment to start the program with."""
        return {**base, _TOKEN: self._token}

    def pids(self) -> list[int]:
        """The processes that live now."""
        return [int(proc.name) for proc in self._processes()]

    def pids_of(self, program: str) -> list[int]:
        """Those of them that run `program`, be it a script."""
        return [pid for pid in self.pids() if program in _arguments(pid)[:3]]

    def memory_mib(self) -> tuple[float, float]:
        """Resident and proportional memory, all processes together."""
        return memory_mib(self.pids())

    def threads(self) -> int:
        """Threads, all processes together."""
        return sum(len(list((proc / "task").iterdir())) for proc in self._processes())

    def wake_ups(self) -> int:
        """How often its threads went to sleep so far."""
        total = 0
        for proc in self._processes():
            for status in proc.glob("task/*/status"):
                for line in status.read_text().splitlines():
                    if line.startswith("voluntary_ctxt_switches"):
                        total += int(line.split()[1])
        return total

    def kill(self) -> None:
        """End what is left of it."""
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _processes(self) -> Iterator[Path]:
        entry = f"{_TOKEN}={self._token}".encode()
        for proc in Path("/proc").glob("[0-9]*"):
            # Gone meanwhile, or another user's: not one of ours.
            with suppress(OSError):
                if entry in (proc / "environ").read_bytes().split(b"\0"):
                    yield proc


def memory_mib(pids: Iterable[int]) -> tuple[float, float]:
    """Resident and proportional memory of processes, together."""
    rss = pss = 0
    for pid in pids:
        with suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                name, _, value = line.partition(":")
                if name == "Rss":
                    rss += int(value.split()[0])
                elif name == "Pss":
                    pss += int(value.split()[0])
    return rss / 1024, pss / 1024


def threads_of(pid: int) -> int:
    """Threads of a process."""
    return _status(pid, "Threads")


def open_files_of(pid: int) -> int:
    """How many descriptors a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def open_files_limit_of(pid: int) -> int:
    """How many it may have."""
    for line in Path(f"/proc/{pid}/limits").read_text().splitlines():
        if line.startswith("Max open files"):
            return int(line.split()[3])
    raise LookupError(f"no limit of open files for process {pid}")


def forget_peaks(pids: Iterable[int]) -> None:
    """Let `peak_mib` start from now (proc(5), clear_refs)."""
    for pid in pids:
        with suppress(OSError):
            Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_mib(pids: Iterable[int]) -> float:
    """The most resident memory that each ever had, added up."""
    total = 0
    for pid in pids:
        with suppress(OSError):
            total += _status(pid, "VmHWM")
    return total / 1024


def _status(pid: int, field: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0])
    raise LookupError(f"no {field} of process {pid}")


def _arguments(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
    except OSError:
        return []
