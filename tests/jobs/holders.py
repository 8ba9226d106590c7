"""Finds the holder of a job by the lock file that it has open (proc(5), Linux)."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Literal

_NAMES = {"worker": "dispatch-work", "guard": "dispatch-guard"}


def holder_of(jobs: Path, job_id: str, kind: Literal["worker", "guard"]) -> int:
    """The pid of a job's worker, or of the guard of its run."""
    lock = jobs / "live" / f"{job_id}.lock"
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # It has gone.
            if (process / "comm").read_text().strip() == _NAMES[kind] and any(
                _leads_to(fd, lock) for fd in (process / "fd").iterdir()
            ):
                return int(process.name)
    raise AssertionError(f"no {kind} has {lock} open")


def _leads_to(fd: Path, file: Path) -> bool:
    try:
        return os.path.samefile(fd, file)
    except OSError:  # It was closed meanwhile, or is no file.
        return False
