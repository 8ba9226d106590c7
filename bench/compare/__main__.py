"""Compares our figures with those of the published predecessor: one command, one table.

    uv run python -m bench.compare                          everything, once (about 15 minutes)
    uv run python -m bench.compare --quick --only m1 m3     some of it, in small sizes
    uv run python -m bench.compare --repeat 3               medians of three repetitions
    uv run --group bench python -m bench.compare --repeat 3 --write-readme

The same client drives both over stdio, in turn, with the same scripted agents. If tests/e2e has
installed the real Claude Code CLI, that is measured too, against a stand-in for its API on
loopback. The predecessor is installed from the package index into a separate environment in
`$XDG_CACHE_HOME/agent-dispatch-bench`.
"""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from bench.compare.comparison import (
    BLOCK,
    NOT_MEASURED,
    Comparison,
    Verdict,
    as_json,
    as_text,
    docs_block,
    from_json,
    merged,
    results_page,
)
from bench.kept import RESULTS, SPEED, write_block
from bench.speed.measurements import (
    FULL,
    GROUPS,
    QUICK,
    TIMED,
    about_run,
    add_options,
    command_line,
    measure,
    positive,
    say,
    select,
)
from bench.speed.measurements import NAMES as ALL_NAMES
from bench.speed.predecessor import (
    NoPredecessorError,
    installed_predecessor,
    named_predecessor,
)
from bench.speed.rows import Row
from bench.speed.workshop import open_workshop
from tests.e2e.claude_cli import VERSION as CLAUDE_VERSION
from tests.npm import cache_folder

PLAN = replace(FULL, loads=TIMED, histories=FULL.histories[:3], crowds=(50,))
NAMES = tuple(name for name in ALL_NAMES if name != "streams")
"""The predecessor cannot run that many dispatches at once."""
Draw = Callable[[Comparison, Path], Sequence[str]]
"""Draws images into a folder; returns the names of their files."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure or read, print and keep; the exit status is 0 if everything requested was done."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.write_readme and (options.only or options.quick):
        parser.error("--write-readme needs all measurements: use it without --only and --quick")
    try:
        draw = _drawing() if options.write_readme else None
        if options.kept:
            comparison = from_json(options.kept.read_text(encoding="utf-8"))
        else:
            comparison = _measured(options)
    except (NoPredecessorError, RuntimeError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    print(as_text(comparison))
    if options.json:
        options.json.write_text(as_json(comparison), encoding="utf-8")
    if options.write_readme and comparison.incomplete:
        print(f"{parser.prog}: docs/speed.md was not changed", file=sys.stderr)
    elif draw is not None:
        _keep(comparison, draw)
    bad = comparison.with_verdict(Verdict.MISSED, Verdict.WORSE, Verdict.MET_BUT_WORSE)
    return 1 if comparison.incomplete or (options.strict and bad) else 0


def _measured(options: argparse.Namespace) -> Comparison:
    """Measure everything requested, `repeat` times; an interruption leaves a partial comparison."""
    with_claude = (cache_folder(os.environ) / f"claude-code-{CLAUDE_VERSION}").exists()
    if not with_claude:
        say(
            "the real CLI is not installed and not measured; to install it: uv run pytest tests/e2e"
        )
    if options.against:
        predecessor = named_predecessor(options.against)
    else:
        predecessor = installed_predecessor(os.environ)
    plan = QUICK if options.quick else PLAN
    sections = select(*NAMES, only=options.only, with_claude=with_claude)
    command = command_line("bench.compare", options, "only", "quick")
    command += f" --repeat {options.repeat}" if options.repeat > 1 else ""
    repetitions: list[list[Row]] = []
    failures: list[str] = []
    about: dict[str, str] = {}
    try:
        for number in range(1, options.repeat + 1):
            say(f"repetition {number} of {options.repeat}")
            repetitions.append([])
            with open_workshop(str(predecessor)) as shop:
                if not about:
                    about = about_run(shop, command)
                    about["Claude Code"] = CLAUDE_VERSION if with_claude else "none here"
                measure(sections, shop, plan, options.only, repetitions[-1], failures)
    except KeyboardInterrupt:
        failures.append(f"interrupted in repetition {len(repetitions)}")
    about["figures"] = f"medians of {options.repeat}; of counts the worst"
    about["load after"] = f"{os.getloadavg()[0]:.1f}"
    if failures:
        about[NOT_MEASURED] = "; ".join(failures)
    rows = sorted(merged(repetitions), key=lambda each: GROUPS.index(each.row.group))
    return Comparison(about=about, rows=tuple(rows))


def _keep(comparison: Comparison, draw: Draw) -> None:
    plots = draw(comparison, RESULTS)
    (RESULTS / "compare.json").write_text(as_json(comparison), encoding="utf-8")
    (RESULTS / "compare.md").write_text(results_page(comparison, plots), encoding="utf-8")
    write_block(BLOCK, docs_block(comparison, plots), SPEED)


def _drawing() -> Draw:
    """Import the plotting first, so that an hour of measuring does not end in an ImportError."""
    try:
        from bench.compare.plots import draw
    except ImportError as error:
        raise RuntimeError(f"{error}; to draw images: uv run --group bench") from error
    return draw


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.compare",
        description="Compare our figures with those of the published predecessor, which is"
        " installed once from the package index unless --against names it.",
    )
    add_options(parser, NAMES)
    parser.add_argument(
        "--repeat", type=positive, default=1, metavar="N", help="repetitions (default: 1)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    parser.add_argument(
        "--from",
        dest="kept",
        type=Path,
        metavar="FILE",
        help="do not measure; show kept figures",
    )
    parser.add_argument(
        "--write-readme",
        action="store_true",
        help="keep the results in bench/results and write the table into docs/speed.md",
    )
    return parser


if __name__ == "__main__":
    # It may take an hour: SIGTERM shows what was measured so far and leaves no server.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
