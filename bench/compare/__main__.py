"""Our speed beside that of the published predecessor: one command, one table.

    uv run python -m bench.compare                          everything, once (about 15 minutes)
    uv run python -m bench.compare --quick --only m1,m3     a look at some of it
    uv run python -m bench.compare --repeat 3               medians of three repetitions
    uv run --group bench python -m bench.compare --repeat 3 --write-readme

Both are driven over stdio by the same client, in turn, with the same scripted agents; and with the
real Claude Code CLI, talking to a stand-in for its API on loopback, if the tests have installed it
or `--claude` names one. The predecessor is installed from the package index into an environment of
its own, in `$XDG_CACHE_HOME/agent-dispatch-bench`.
"""

import argparse
import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.command import say
from bench.compare.document import (
    BLOCK,
    Comparison,
    as_json,
    as_text,
    from_json,
    readme_block,
    results_page,
)
from bench.compare.measure import CannotMeasureError, Order, measure
from bench.compare.predecessor import (
    REQUIREMENT,
    NoPredecessorError,
    benchmark_cache,
    installed_predecessor,
    named_predecessor,
)
from bench.compare.sections import FULL, GROUPS, QUICK
from bench.compare.verdict import Verdict
from bench.kept import RESULTS
from bench.readme import README, write_block
from tests.e2e.claude_cli import VERSION as CLAUDE_VERSION
from tests.e2e.claude_cli import cache_folder as tests_cache
from tests.e2e.claude_cli import installed_claude

Draw = Callable[[Comparison, Path], Sequence[str]]
"""Puts images into a folder; the names of their files."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure or read, print, keep; the exit status says whether all that was asked was done."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.write_readme and (options.only or options.quick):
        parser.error("--write-readme wants all of it: without --only and --quick")
    results = RESULTS if options.write_readme else options.results
    try:
        draw = _drawing() if results else None
        comparison = _found(options)
    except (NoPredecessorError, CannotMeasureError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    print(as_text(comparison))
    if options.json:
        options.json.write_text(as_json(comparison), encoding="utf-8")
    if options.write_readme and comparison.incomplete:
        print(f"{parser.prog}: README.md is left as it was", file=sys.stderr)
    elif draw is not None:
        _keep(comparison, results, draw, readme=options.write_readme)
    bad = comparison.with_verdict(Verdict.MISSED, Verdict.WORSE, Verdict.MET_BUT_WORSE)
    return 1 if comparison.incomplete or (options.strict and bad) else 0


def _found(options: argparse.Namespace) -> Comparison:
    if options.kept:
        return from_json(options.kept.read_text(encoding="utf-8"))
    claude = _claude(options.claude)
    if claude is None:
        say("nothing with the real CLI: it is not installed; name it with --claude")
    if options.predecessor:
        predecessor = named_predecessor(options.predecessor)
    else:
        predecessor = installed_predecessor(benchmark_cache(os.environ))
    order = Order(
        told=_told(options),
        predecessor=predecessor,
        claude=claude,
        wanted=options.only,
        plan=QUICK if options.quick else FULL,
        repeat=options.repeat,
    )
    return measure(order)


def _claude(named: Path | None) -> Path | None:
    """The one that is named, or that the tests have installed, or that is on PATH."""
    if named is not None:
        if not os.access(named, os.X_OK):
            raise CannotMeasureError(f"{named} is no program")
        return named.resolve()
    cache = tests_cache(os.environ)
    if (cache / f"claude-code-{CLAUDE_VERSION}").exists():
        return installed_claude(cache)
    found = shutil.which("claude")
    return Path(found).resolve() if found else None


def _told(options: argparse.Namespace) -> str:
    """The command without the places of this machine."""
    words = ["python -m bench.compare"]
    if options.only:
        words.append(f"--only {','.join(options.only)}")
    if options.quick:
        words.append("--quick")
    if options.repeat > 1:
        words.append(f"--repeat {options.repeat}")
    return " ".join(words)


def _keep(comparison: Comparison, folder: Path, draw: Draw, *, readme: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    plots = draw(comparison, folder)
    (folder / "compare.json").write_text(as_json(comparison), encoding="utf-8")
    (folder / "compare.md").write_text(results_page(comparison, plots), encoding="utf-8")
    if readme:
        where = folder.relative_to(README.parent).as_posix()
        write_block(BLOCK, readme_block(comparison, where, plots))


def _drawing() -> Draw:
    """How to draw; found out before anything is measured for an hour."""
    try:
        from bench.compare.plots import draw
    except ImportError as error:
        raise CannotMeasureError(f"{error}; images need the dependency group bench") from error
    return draw


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.compare",
        description="Our speed beside that of the published predecessor.",
    )
    parser.add_argument(
        "--predecessor",
        metavar="PATH",
        help="its console script, or the interpreter it is installed for (default: installed"
        f" as {REQUIREMENT} from the package index, once)",
    )
    parser.add_argument(
        "--claude",
        type=Path,
        metavar="PATH",
        help="the real CLI (default: the one that the tests have installed, or that is on PATH)",
    )
    parser.add_argument(
        "--only", type=_groups, default=(), metavar="ROWS", help=f"some of {','.join(GROUPS)}"
    )
    parser.add_argument("--quick", action="store_true", help="less of everything, for a look at it")
    parser.add_argument(
        "--repeat", type=_positive, default=1, metavar="N", help="so often (default: 1)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the figures there")
    parser.add_argument(
        "--results", type=Path, metavar="FOLDER", help="keep figures, page and images there"
    )
    parser.add_argument(
        "--from",
        dest="kept",
        type=Path,
        metavar="FILE",
        help="measure nothing, show figures that were kept",
    )
    parser.add_argument(
        "--write-readme",
        action="store_true",
        help="keep the results in bench/results and put the table into README.md",
    )
    parser.add_argument(
        "--strict", action="store_true", help="exit 1 when a target is missed or a row is worse"
    )
    return parser


def _groups(text: str) -> tuple[str, ...]:
    wanted = tuple(text.split(","))
    if unknown := [group for group in wanted if group not in GROUPS]:
        raise argparse.ArgumentTypeError(f"no rows {', '.join(unknown)}; there are {GROUPS}")
    return wanted


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("a number from 1 on")
    return number


if __name__ == "__main__":
    # It may take an hour: whoever ends it gets what there is, and no server is left.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
