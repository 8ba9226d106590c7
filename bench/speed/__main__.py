"""Measures speed, memory and processes, alone or beside the published predecessor.

    uv run python -m bench.speed                          only this product and its floors
    uv run python -m bench.speed --only m1 endings        some of it
    uv run python -m bench.speed --quick                  small sizes
    uv run python -m bench.speed --against PROGRAM        beside the predecessor
    uv run python -m bench.speed --real                   also the real Claude Code CLI

The agents are small programs that answer at once or when they are told to, so the figures show what
this product adds. With `--real` the real CLI talks to a stand-in for its API on loopback.
`bench.compare` repeats the measurements and keeps the result for the docs.
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace

from bench.kept import in_words
from bench.speed.measurements import (
    FULL,
    GROUPS,
    NAMES,
    QUICK,
    about_run,
    add_options,
    command_line,
    measure,
    positive,
    select,
)
from bench.speed.predecessor import NoPredecessorError, named_predecessor
from bench.speed.rows import Row, as_table
from bench.speed.workshop import open_workshop

_VERDICTS = {True: "met", False: "MISSED", None: "-"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; returns the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    plan = QUICK if options.quick else FULL
    if options.rounds is not None:
        plan = replace(plan, rounds=options.rounds)
    sections = select(only=options.only, with_claude=options.real)
    rows: list[Row] = []
    failures: list[str] = []
    try:
        against = str(named_predecessor(options.against)) if options.against else ""
        with open_workshop(against) as shop:
            shown = ("only", "quick", "rounds", "real")
            about = about_run(shop, command_line("bench.speed", options, *shown))
            measure(sections, shop, plan, options.only, rows, failures)
    except (NoPredecessorError, RuntimeError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    rows = sorted((r for r in rows if not math.isnan(r.ours)), key=lambda r: GROUPS.index(r.group))
    if options.json:
        listed = [asdict(row) | {"target": row.meaning(), "met": row.met} for row in rows]
        print(json.dumps({**about, "failed": failures, "rows": listed}, indent=2))
    else:
        print(as_table((row, _VERDICTS[row.met]) for row in rows))
        print(f"\n{in_words(about)}")
        print("".join(f"not measured: {failure}\n" for failure in failures), end="")
    return 1 if failures or (options.strict and any(row.met is False for row in rows)) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.speed", description="Measure speed, memory and processes."
    )
    add_options(parser, NAMES)
    parser.add_argument("--rounds", type=positive, help="number of samples of the cheap figures")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--real", action="store_true", help="also measure the real Claude Code CLI")
    return parser


if __name__ == "__main__":
    sys.exit(main())
