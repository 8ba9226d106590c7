"""The run: each section with both products, as often as asked, and what the machine was like."""

import argparse
import os
import platform
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.background import durable_write_s
from bench.command import Workshop, open_workshop, say
from bench.compare.document import NOT_MEASURED, Comparison
from bench.compare.predecessor import version_of
from bench.compare.sections import GROUPS, Plan, Section, Site, sections
from bench.compare.verdict import merged
from bench.cpu import why_not_counted
from bench.harness import RefusedError
from bench.kept import measured_commit
from bench.report import Row
from tests.e2e.claude_cli import CannotInstallError

_WRITES = 30


class CannotMeasureError(Exception):
    """What is to be measured is not usable; the text says why."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is to be measured."""

    told: str
    """The command, for those who read the results."""
    predecessor: Path
    claude: Path | None
    wanted: tuple[str, ...]
    """Groups of rows; none: all."""
    plan: Plan
    repeat: int


def measure(order: Order) -> Comparison:
    """Measure all that is wanted, `repeat` times from the first section to the last.

    If interrupted, what was measured so far comes back, and that it is not all.
    """
    load_before = _load()
    repetitions: list[list[Row]] = []
    failures: list[str] = []
    about: dict[str, str] = {}
    try:
        for number in range(1, order.repeat + 1):
            rows: list[Row] = []
            repetitions.append(rows)
            with open_workshop(argparse.Namespace(against=str(order.predecessor))) as workshop:
                about = about or _about(order, workshop)
                site = Site(workshop=workshop, plan=order.plan, claude=order.claude)
                for section in sections(order.wanted, with_claude=order.claude is not None):
                    say(f"{section.name} (repetition {number} of {order.repeat})")
                    rows += _rows_of(section, site, failures)
    except KeyboardInterrupt:
        failures.append(f"interrupted in repetition {len(repetitions)}")
    about |= {"load": f"{load_before} before, {_load()} after"}
    if failures:
        about |= {NOT_MEASURED: "; ".join(failures)}
    compared = [
        each for each in merged(repetitions) if not order.wanted or each.row.group in order.wanted
    ]
    compared.sort(key=lambda each: GROUPS.index(each.row.group))
    return Comparison(about=about, rows=tuple(compared))


def _rows_of(section: Section, site: Site, failures: list[str]) -> list[Row]:
    """The rows of a section; one that fails costs its own rows and is told, not all the others."""
    try:
        return section.measure(site)
    except (RuntimeError, RefusedError, TimeoutError, EOFError, CannotInstallError) as error:
        failure = f"{section.name}: {str(error) or type(error).__name__}"
        say(f"FAILED, {failure}")
        failures.append(failure.replace("\n", " ")[:300])
        return []


def _about(order: Order, workshop: Workshop) -> dict[str, str]:
    why_not = why_not_counted()
    ours = Path(workshop.products("versions")[0].program)
    return {
        "command": order.told,
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "agent-dispatch": f"{version_of(ours)}{measured_commit()}",
        "predecessor": version_of(order.predecessor),
        "Claude Code": "none here"
        if order.claude is None
        else _claude_version(order.claude, workshop.root),
        "Python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        "scripted agent": workshop.standin_is,
        "durable write": f"{_durable_write_ms(workshop.root):.1f} ms",
        "CPU time": f"not counted: {why_not}" if why_not else "of all descendants",
        "figures": f"medians of {order.repeat}; of counts the worst",
    }


def _durable_write_ms(folder: Path) -> float:
    """What this disk takes at the beginning; other figures contain such writes."""
    return median(durable_write_s(folder) for _ in range(_WRITES)) * 1000


def _claude_version(claude: Path, home: Path) -> str:
    environ = {"PATH": os.defpath, "HOME": str(home), "DISABLE_AUTOUPDATER": "1"}
    done = subprocess.run(
        [str(claude), "--version"], env=environ, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise CannotMeasureError(f"{claude} --version failed: {done.stdout}{done.stderr}")
    return done.stdout.split()[0]


def _load() -> str:
    return f"{os.getloadavg()[0]:.1f}"
