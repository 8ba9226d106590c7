"""The limit on concurrent runs, and the cost of many dispatches at once.

    uv run python -m bench.concurrency                       only this product
    uv run python -m bench.concurrency --against PROGRAM     compare with the published predecessor
    uv run python -m bench.concurrency --quick               small sizes, in less than 20 s
    uv run python -m bench.concurrency --real                also a dialogue of the real CLI

The agents are small programs that work for a while and count themselves.
"""

import sys
from collections.abc import Sequence

from bench.sections import run_command

NAMES = ("limits", "crowd", "streams", "answer", "second-turn")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit status."""
    about = "Measure the limit on concurrent runs, and the cost of many dispatches at once."
    return run_command("bench.concurrency", about, NAMES, arguments)


if __name__ == "__main__":
    sys.exit(main())
