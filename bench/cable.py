"""A cable for `bench.cuts`: runs a command and carries its bytes, as ssh does.

    python cable.py PLACE COMMAND…

It appends its own pid and that of the command to `PLACE/links`. When it is stopped, it acts as a
network that is cut; when it is killed, as a link that breaks. The command notices the death of the
caller by EOF alone.
"""

import os
import subprocess
import sys
import threading
from pathlib import Path


def carry(source: int, target: int) -> None:
    """Carry bytes until one end is gone."""
    while chunk := os.read(source, 65536):
        view = memoryview(chunk)
        try:
            while view:
                view = view[os.write(target, view) :]
        except BrokenPipeError:
            return


def main() -> None:
    """Carry both ways."""
    place, command = Path(sys.argv[1]), sys.argv[2:]
    # In a session of its own, as on another machine.
    other = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    assert other.stdin is not None
    assert other.stdout is not None
    with (place / "links").open("a") as file:
        file.write(f"{os.getpid()} {other.pid}\n")
    there = other.stdin.fileno()

    def to_there() -> None:
        carry(0, there)
        os.close(there)

    threading.Thread(target=to_there, daemon=True).start()
    carry(other.stdout.fileno(), 1)
    status = other.wait()
    # As `docker exec` reports that its command was killed.
    os._exit(status if status >= 0 else 128 - status)


if __name__ == "__main__":
    main()
