"""A comparison: verdicts, the reasons of bad ones, and the tables for a terminal and the docs."""

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import Enum
from pathlib import Path
from statistics import median

import msgspec

from bench.kept import in_words
from bench.speed.rows import Row, as_table, number, with_unit

BLOCK = "compare"
"""The name of the block in docs/speed.md."""
NOT_MEASURED = "not measured"
"""The key of failures in `about`."""
EVEN = 0.05
"""Figures that differ by no more than this share are even."""
_HEAD = ("", "agent-dispatch", "predecessor", "ratio", "target", "verdict")

HEADLINES: Mapping[str, str] = {
    "instant child: what is added, wall": "a dispatch, over its agent alone",
    "first dispatch": "the first dispatch of a server",
    "watched dispatch of 400 messages, wall": "a watched dispatch of 400 messages",
    "start to tools, discover": "start of the server, as Claude Code does it",
    "PSS idle": "memory when idle (PSS, with helpers)",
    "exit after EOF": "end of the server after its client has gone",
    "list_agents, 10 agents": "list_agents",
    "list_agents while 5 dispatches report": "list_agents while 5 dispatches report",
    "200 x 1 s at limit 5: wall of ideal": "200 dispatches of 1 s at limit 5, of the ideal",
    "200 x 1 s at limit 20: wall of ideal": "200 dispatches of 1 s at limit 20, of the ideal",
    "200 x 1 s at limit 50: wall of ideal": "200 dispatches of 1 s at limit 50, of the ideal",
    "200 x 1 s at limit 50: peak": "200 dispatches at limit 50: agents at once",
    "200 x 1 s at limit 50: CPU of each": "200 dispatches at limit 50: CPU of each, with its agent",
    "dispatch_async to its answer": "dispatch_async, to its answer",
    "dispatch_wait after the agent's end": "dispatch_wait, after the agent's end",
    "100 instant jobs, wall": "100 background jobs of instant agents",
    "newest 50 of 1000": "dispatch_jobs beside 1,000 jobs",
    "newest 50 of 50000": "dispatch_jobs beside 50,000 jobs",
    "list_agents right behind it, 50000 beside": "list_agents behind a listing of 50,000 jobs",
    "start of a server, 50000 jobs": "start of a server beside 50,000 jobs",
    "list": "the command agent-dispatch list",
    "dispatch of the real CLI, wall": "a dispatch of the real CLI",
    "registered: dispatch, wall": "a dispatch of the real CLI, product at user scope",
    "dialogue of 3 rounds, wall": "a dialogue of 6 turns of the real CLI",
    "50 dispatches: running": "50 dispatches at limit 50: agents at work",
    "50 dispatches: PSS of each": "50 dispatches: memory of each beside its agent (PSS)",
    "answer of 64 MiB: wall": "an answer of 64 MiB",
    "answer of 64 MiB: on the wire": "an answer of 64 MiB: on the wire",
    "answer of 64 MiB: peak RSS over idle": "an answer of 64 MiB: memory at its peak",
    "call: children alive 3 s after EOF, TERM, INT, KILL": (
        "agents of calls left 3 s after the server's end, of 4"
    ),
    "worst time to the server's exit": "worst time to the server's end",
    "background: done, says a new server": "background jobs that outlive their server, of 4",
    "lost of 40 requests beside a dispatch (scripted agent)": (
        "requests lost of 40 beside a dispatch, scripted agent"
    ),
    "lost of 40 requests beside a dispatch (real CLI)": (
        "requests lost of 40 beside a dispatch, real CLI"
    ),
}
"""What users notice: the name of a row, and its name for readers of the docs."""

_DURABLE = (
    "On disk, durably, before the agent starts and before the answer is given; the predecessor"
    " waits for no disk. `durable write` is what one takes on this disk, and a dispatch has two."
)
_GUARDED = (
    "Each agent has a guard, a process of its own that ends it whatever happens to the server, and"
    " each background job a worker, so that it goes on. An agent takes some 100 MiB itself."
)
_LIBRARY = (
    "The first tool call of a session loads the MCP library, which takes most of a second. Until"
    " then the server is one small process. After that, most of its memory, and most of the time of"
    " a quick call, is the library's."
)
_REASONS: Mapping[str, str] = {
    r"^start to|idle$|^registered:|^list_agents|^first dispatch": _LIBRARY,
    r"PSS of (each|server)|growth in PSS|descriptors of each": _GUARDED,
    r"CPU of each": f"{_DURABLE} {_GUARDED}",
    r"instant|^watched dispatch|^dispatch_async|^dispatch_wait": _DURABLE,
}
"""By a pattern of the row's name; the first match counts."""


class Verdict(Enum):
    """The verdict on a row, in the words that are shown."""

    MET = "met"
    MISSED = "missed"
    MET_BUT_WORSE = "met, but worse than the predecessor"
    WORSE = "worse than the predecessor"
    NO_TARGET = "no target"


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One row of several repetitions, and the figures of each."""

    row: Row
    ours_each: tuple[float, ...]
    predecessor_each: tuple[float, ...]

    @property
    def verdict(self) -> Verdict:
        """Whether the target is met and whether the predecessor is better."""
        worse = is_worse(self.row)
        match self.row.met:
            case True:
                return Verdict.MET_BUT_WORSE if worse else Verdict.MET
            case False:
                return Verdict.WORSE if worse else Verdict.MISSED
            case None:
                return Verdict.WORSE if worse else Verdict.NO_TARGET

    @property
    def reason(self) -> str:
        """Why the row misses its target or is worse; empty if it is neither, or if unknown."""
        if self.verdict in (Verdict.MET, Verdict.NO_TARGET):
            return ""
        reasons = (why for pattern, why in _REASONS.items() if re.search(pattern, self.row.name))
        return next(reasons, "")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All rows of a run."""

    about: Mapping[str, str]
    """Command, versions, date, machine and load, in words."""
    rows: tuple[Compared, ...]

    @property
    def incomplete(self) -> bool:
        """Whether a measurement failed."""
        return NOT_MEASURED in self.about

    def with_verdict(self, *verdicts: Verdict) -> list[Compared]:
        """The rows with this verdict."""
        return [compared for compared in self.rows if compared.verdict in verdicts]

    @property
    def telling(self) -> list[Compared]:
        """The rows for docs/speed.md: what users notice, and where the predecessor is better."""
        return [c for c in self.rows if c.row.name in HEADLINES or is_worse(c.row)]


def is_worse(row: Row) -> bool:
    """Whether the predecessor's figure is better by more than noise."""
    theirs = row.predecessor
    if theirs is None:
        return False
    match _sign(row):
        case ">=":
            return row.ours < theirs * (1 - EVEN)
        case "=":
            return _distance(row, row.ours) > _distance(row, theirs)
        case _:
            return row.ours > theirs * (1 + EVEN)


def gain(row: Row) -> float | None:
    """How many times better our figure is; None if one of them is zero."""
    if not row.predecessor or not row.ours or _sign(row) == "=":
        return None
    less = row.predecessor / row.ours
    return 1 / less if _sign(row) == ">=" else less


def merged(repetitions: Iterable[Sequence[Row]]) -> list[Compared]:
    """The rows of all repetitions by name: medians, and the worst of counts.

    Rows without a figure of each product are left out.
    """
    alike: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for rows in repetitions:
        for row in rows:
            if row.predecessor is not None and not math.isnan(row.ours + row.predecessor):
                alike[row.group, row.name].append(row)
    return [_merged(rows) for rows in alike.values()]


def _merged(rows: Sequence[Row]) -> Compared:
    first = rows[0]
    ours = tuple(row.ours for row in rows)
    theirs = tuple(row.predecessor for row in rows if row.predecessor is not None)
    floors = [row.floor for row in rows if row.floor is not None]
    row = replace(
        first,
        ours=_typical(first, ours),
        predecessor=_typical(first, theirs),
        floor=median(floors) if floors else None,
    )
    return Compared(row=row, ours_each=ours, predecessor_each=theirs)


def _typical(row: Row, values: Sequence[float]) -> float:
    if row.unit:
        return median(values)
    match _sign(row):
        case ">=":
            return min(values)
        case "=":
            return max(values, key=lambda value: _distance(row, value))
        case _:
            return max(values)


def _distance(row: Row, value: float) -> float:
    return abs(value - row.targets[0].factor)


def _sign(row: Row) -> str:
    # All targets of a row have the same sign.
    return row.targets[0].sign if row.targets else "<="


def label_of(row: Row) -> str:
    """The name of a row for readers who see only some rows."""
    return HEADLINES.get(row.name, row.name)


def as_json(comparison: Comparison) -> str:
    """The whole comparison, for `from_json`."""
    rows = []
    for compared in comparison.rows:
        told = {"ratio": compared.row.ratio, "verdict": compared.verdict.value}
        told |= {"target": compared.row.meaning(), "reason": compared.reason}
        rows.append({**asdict(compared), **told})
    return json.dumps({"about": dict(comparison.about), "rows": rows}, indent=1) + "\n"


def from_json(text: str) -> Comparison:
    """Read a kept comparison."""
    return msgspec.json.decode(text, type=Comparison)


def as_text(comparison: Comparison) -> str:
    """The table, its summary and the description of the run, for a terminal."""
    about = [f"{name}: {value}" for name, value in comparison.about.items()]
    table = as_table((compared.row, compared.verdict.value) for compared in comparison.rows)
    return "\n".join([*about, "", table, "", summary(comparison)])


def summary(comparison: Comparison) -> str:
    """The number of rows with each verdict."""
    met = comparison.with_verdict(Verdict.MET, Verdict.MET_BUT_WORSE)
    missed = [compared for compared in comparison.rows if compared.row.met is False]
    worse = comparison.with_verdict(Verdict.WORSE, Verdict.MET_BUT_WORSE)
    return (
        f"{len(comparison.rows)} rows: {len(met)} targets met, {len(missed)} missed,"
        f" {len(worse)} worse than the predecessor (by more than {EVEN:.0%})."
    )


def as_markdown(comparison: Comparison, rows: Sequence[Compared]) -> str:
    """Some rows as a table, with the reasons for bad ones below."""
    lines = [_cells(_HEAD), _cells(("---",) * len(_HEAD))]
    reasons: list[str] = []
    for compared in rows:
        row, verdict, target = compared.row, compared.verdict.value, compared.row.meaning()
        if reason := compared.reason:
            if reason not in reasons:
                reasons.append(reason)
            verdict += f" ({reasons.index(reason) + 1})"
        if row.target and row.target.of == "floor":
            target += f" ({with_unit(row.floor, row)})"
        figures = (with_unit(row.ours, row), with_unit(row.predecessor, row), number(row.ratio))
        lines.append(_cells((label_of(row), *figures, target, verdict)))
    notes = [f"{position}. {reason}" for position, reason in enumerate(reasons, start=1)]
    last = f"{summary(comparison)} {in_words(comparison.about)}."
    parts = ["\n".join(lines), "\n".join(notes), last]
    return "\n\n".join(part for part in parts if part) + "\n"


def _cells(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def docs_block(comparison: Comparison, plots: Sequence[str]) -> str:
    """The block of docs/speed.md.

    Args:
        comparison: The comparison.
        plots: The names of the images in bench/results.
    """
    images = "\n".join(f"![{Path(name).stem}](../bench/results/{name})" for name in plots)
    whole = "All rows and images: [bench/results/compare.md](../bench/results/compare.md)."
    return "\n\n".join([as_markdown(comparison, comparison.telling).strip(), whole, images])


def results_page(comparison: Comparison, plots: Sequence[str]) -> str:
    """The page with all rows."""
    images = "\n\n".join(f"![{Path(name).stem}]({name})" for name in plots)
    table = as_markdown(comparison, comparison.rows)
    return f"# agent-dispatch beside its predecessor\n\n{table}\n{images}\n"
