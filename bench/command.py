"""What the benchmarks' command lines have in common."""

import argparse
import math
import os
import platform
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.cpu import why_not_counted
from bench.products import Product, build_standin, ours, predecessor
from bench.report import Row, as_json, as_table

_SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """Where it is measured: a folder that is removed afterwards, and the stand-in for claude."""

    root: Path
    environ: dict[str, str]
    standin: str
    """The program."""
    standin_is: str
    against: str

    def products(self, name: str, *, limit: int | None = None) -> list[Product]:
        """This product and, if it is asked for, its predecessor, in a folder of their own."""
        root = self.root / name
        root.mkdir()
        products = [ours(root, self.environ, limit=limit)]
        if self.against:
            products.append(predecessor(self.against, root, self.environ, limit=limit))
        return products


@contextmanager
def open_workshop(options: argparse.Namespace) -> Iterator[Workshop]:
    """Make a workshop for as long as the block runs."""
    with tempfile.TemporaryDirectory(prefix="agent-dispatch-bench-") as scratch:
        folder, standin_is = build_standin(Path(scratch))
        environ = {
            "PATH": f"{folder}:{_SYSTEM_PATH}",
            "HOME": scratch,
            "LANG": "C.UTF-8",
            "TMPDIR": scratch,
        }
        yield Workshop(
            root=Path(scratch),
            environ=environ,
            standin=str(folder / "claude"),
            standin_is=standin_is,
            against=options.against,
        )


def add_options(parser: argparse.ArgumentParser, *, rounds: int, groups: Sequence[str]) -> None:
    """The options that every benchmark has."""
    parser.add_argument(
        "--rounds",
        type=int,
        default=rounds,
        help=f"samples of the cheap figures (default: {rounds})",
    )
    parser.add_argument(
        "--against",
        metavar="PROGRAM",
        default="",
        help="the predecessor (agent-dispatch 0.16.0 from the package index, in an environment of"
        " its own): its console script, or the interpreter it is installed for",
    )
    parser.add_argument(
        "--only", nargs="+", default=[], choices=groups, help="some of the rows (default: all)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--strict", action="store_true", help="exit 1 when a target is missed")


def show(rows: Sequence[Row], workshop: Workshop, options: argparse.Namespace) -> int:
    """Print the rows and what is known of the run; the exit status."""
    why_not = why_not_counted()
    if why_not is not None:
        rows = [row for row in rows if not math.isnan(row.ours)]
    about = about_run(workshop, options)
    if options.json:
        print(as_json(rows, about))
    else:
        print(as_table(rows))
        if any(row.met is None and row.targets for row in rows):
            print("\n-: the target is a share of the predecessor's figure; see --against")
        print("\n" + "; ".join(f"{name}: {value}" for name, value in about.items()))
    missed = [row for row in rows if row.met is False]
    return 1 if options.strict and missed else 0


def about_run(workshop: Workshop, options: argparse.Namespace) -> dict[str, object]:
    """What is known of a run besides its figures."""
    why_not = why_not_counted()
    return {
        "standin": workshop.standin_is,
        "CPU time": f"not counted: {why_not}" if why_not else "by the kernel's task clock",
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        "load": f"{os.getloadavg()[0]:.1f} in the last minute",
        "rounds": options.rounds,
    }


def say(what: str) -> None:
    """Tell what is going on, beside the answer."""
    print(f"measuring {what} ...", file=sys.stderr)
