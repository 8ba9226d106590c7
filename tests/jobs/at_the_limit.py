"""Creates jobs until no descriptor is left, ends them all, and prints what happened."""

import os
import resource
import sys
from pathlib import Path

import msgspec

from agent_dispatch.jobs.errors import JobStoreError
from agent_dispatch.jobs.store import JobStore
from tests.jobs.support import end, running

LIMIT = 64


def open_descriptors() -> int:
    """Count them without opening one."""
    count = 0
    for fd in range(LIMIT):
        try:
            os.fstat(fd)
        except OSError:
            continue
        count += 1
    return count


def main() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT, LIMIT))
    directory = Path(sys.argv[1])
    store = JobStore(directory)
    before = open_descriptors()
    claims = []
    error = ""
    while not error:
        # Use up the descriptors that were too few for one more job.
        held = open_descriptors()
        try:
            claims.append(running(store))
        except JobStoreError as refused:
            error = str(refused)
            assert open_descriptors() == held
    spare = [os.dup(0) for _ in range(LIMIT - open_descriptors())]
    persisted = [end(store, claim).persisted for claim in claims]
    for fd in spare:
        os.close(fd)
    seen = {
        "created": len(claims),
        "error": error,
        "leaked": open_descriptors() - before,
        "persisted": persisted,
        "files": len(list(directory.glob("*.json"))),
    }
    sys.stdout.write(msgspec.json.encode(seen).decode())


if __name__ == "__main__":
    main()
