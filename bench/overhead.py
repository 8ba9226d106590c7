"""The time that a dispatch adds to its agent, and the cost of the server and the commands.

    uv run python -m bench.overhead                          only this product and its floors
    uv run python -m bench.overhead --against PROGRAM        compare with the published predecessor
    uv run python -m bench.overhead --real                   also the real Claude Code CLI

The child is a small program that answers at once, so the figures show what is added. With
`--real` the real CLI talks to a stand-in for its API on loopback.
"""

import sys
from collections.abc import Sequence

from bench.sections import run_command

NAMES = (
    *(
        "instant-child",
        "evidence",
        "watched-dispatch",
        "server-life",
        "idle-after-use",
        "list_agents",
    ),
    *("commands", "real-dispatch", "registered"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit status."""
    about = "Measure the time that a dispatch adds to its agent."
    return run_command("bench.overhead", about, NAMES, arguments)


if __name__ == "__main__":
    sys.exit(main())
