"""What a dispatch costs over the bare child, and what the server and the commands cost alone.

    uv run python -m bench.overhead                          this product and its floors
    uv run python -m bench.overhead --against PROGRAM        beside the published predecessor
    uv run python -m bench.overhead --real                   the real Claude Code CLI too

The child is a small program that answers at once, so only what is added is measured. With
`--real` the real CLI talks to a stand-in for its API on loopback.
"""

import sys
from collections.abc import Sequence

from bench.sections import run_command

NAMES = (
    *("instant-child", "watched-dispatch", "server-life", "idle-after-use", "list_agents"),
    *("commands", "real-dispatch", "registered"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit status."""
    about = "What a dispatch costs over the bare child."
    return run_command("bench.overhead", about, NAMES, arguments)


if __name__ == "__main__":
    sys.exit(main())
