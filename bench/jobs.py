"""The cost of background jobs and their records, and the processes that servers leave behind.

    uv run python -m bench.jobs                             only this product and its floors
    uv run python -m bench.jobs --against PROGRAM           compare with the published predecessor
    uv run python -m bench.jobs --only crash --kills 600    the store under kill -9

The agent is a small program that answers at once, or when the benchmark tells it to. The long
histories are copies of a real record, in a folder that is removed afterwards.
"""

import sys
from collections.abc import Sequence

from bench.sections import run_command

NAMES = (
    *("submissions", "wake-ups", "killed-workers", "hundred-jobs", "histories", "jobs-at-once"),
    *("endings", "crash"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit status."""
    about = "Measure the cost of background jobs and their records."
    return run_command("bench.jobs", about, NAMES, arguments)


if __name__ == "__main__":
    sys.exit(main())
