"""Who holds a job: told by the lock that the worker and the guard have open (proc(5), Linux)."""

import os
from pathlib import Path
from typing import Literal

_NAMES = {"worker": "dispatch-work", "guard": "dispatch-guard"}


def holder_of(jobs: Path, job_id: str, kind: Literal["worker", "guard"]) -> int:
    """The pid of a job's worker, or of the guard of its run."""
    lock = jobs / "live" / f"{job_id}.lock"
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "comm").read_text().strip() == _NAMES[kind] and any(
                os.path.samefile(fd, lock) for fd in (process / "fd").iterdir()
            ):
                return int(process.name)
        except OSError:  # It has gone, or a descriptor that is no file.
            continue
    raise AssertionError(f"no {kind} has {lock} open")
