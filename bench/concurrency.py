"""What happens at the limit on concurrent runs, and what many dispatches at once cost.

    uv run python -m bench.concurrency                       this product alone
    uv run python -m bench.concurrency --against PROGRAM     beside the published predecessor
    uv run python -m bench.concurrency --quick               small sizes, in less than 20 s
    uv run python -m bench.concurrency --real                a dialogue of the real CLI too

The agents are small programs that work for a while and count themselves.
"""

import sys
from collections.abc import Sequence

from bench.sections import run_command

NAMES = ("limits", "crowd", "streams", "answer", "second-turn")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit status."""
    about = "What happens at the limit on concurrent runs, and what many at once cost."
    return run_command("bench.concurrency", about, NAMES, arguments)


if __name__ == "__main__":
    sys.exit(main())
