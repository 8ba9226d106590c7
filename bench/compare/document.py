"""What a comparison found: kept as JSON, shown as a table on the terminal and in Markdown."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.compare.reasons import HEADLINES, label_of, reason_of
from bench.compare.verdict import EVEN, Compared, Verdict, is_worse
from bench.report import Row, Target, number

BLOCK = "compare"
"""The name of the block in README.md."""
NOT_MEASURED = "not measured"
"""What failed, in `about`."""
_HEAD = ("row", "figure", "ours", "predecessor", "ratio", "floor", "target", "verdict")
_MARKDOWN_HEAD = ("", "agent-dispatch", "predecessor", "ratio", "target", "verdict")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All that is known of a run."""

    about: Mapping[str, str]
    """Command, versions, date, machine, load: in words."""
    rows: tuple[Compared, ...]

    @property
    def incomplete(self) -> bool:
        """Whether something could not be measured that should have been."""
        return NOT_MEASURED in self.about

    def with_verdict(self, *verdicts: Verdict) -> list[Compared]:
        """The rows that ended so."""
        return [compared for compared in self.rows if compared.verdict in verdicts]

    @property
    def telling(self) -> list[Compared]:
        """What README shows: what users notice, and wherever the predecessor is better."""
        return [
            compared
            for compared in self.rows
            if compared.row.name in HEADLINES or is_worse(compared.row)
        ]


def as_json(comparison: Comparison) -> str:
    """All of it; `from_json` reads it back."""
    rows = []
    for compared in comparison.rows:
        told = {"ratio": compared.ratio, "verdict": compared.verdict.value}
        told |= {"target": compared.row.meaning(), "reason": reason_of(compared)}
        rows.append({**asdict(compared), **told})
    return json.dumps({"about": dict(comparison.about), "rows": rows}, indent=1) + "\n"


def from_json(text: str) -> Comparison:
    """A comparison that was kept."""
    kept = json.loads(text)
    return Comparison(
        about=kept["about"], rows=tuple(_compared_from(told) for told in kept["rows"])
    )


def _compared_from(told: Mapping[str, Any]) -> Compared:
    targets = tuple(Target(**target) for target in told["row"]["targets"])
    return Compared(
        row=Row(**{**told["row"], "targets": targets}),
        ours_each=tuple(told["ours_each"]),
        predecessor_each=tuple(told["predecessor_each"]),
    )


def as_text(comparison: Comparison) -> str:
    """The table for a terminal, below what the run was, and the sums below it."""
    lines: list[tuple[str, ...]] = [_HEAD]
    for compared in comparison.rows:
        row = compared.row
        floor = f"{number(row.floor)} ({row.floor_is})" if row.floor is not None else ""
        named = [row.group, row.name, _figure(row.ours, row), _figure(row.predecessor, row)]
        judged = [number(compared.ratio), floor, row.meaning(), compared.verdict.value]
        lines.append((*named, *judged))
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEAD))]
    table = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    about = [f"{name}: {value}" for name, value in comparison.about.items()]
    return "\n".join([*about, "", *table, "", summary(comparison)])


def summary(comparison: Comparison) -> str:
    """How many rows ended in which way."""
    worse = comparison.with_verdict(Verdict.WORSE, Verdict.MET_BUT_WORSE)
    counts = [
        f"{len(comparison.with_verdict(Verdict.MET, Verdict.MET_BUT_WORSE))} targets met",
        f"{len([c for c in comparison.rows if c.row.met is False])} missed",
        f"{len(worse)} worse than the predecessor (by more than {EVEN:.0%})",
    ]
    return f"{len(comparison.rows)} rows: {', '.join(counts)}."


def as_markdown(comparison: Comparison, rows: Sequence[Compared]) -> str:
    """Some of the rows as a table, each that is behind with its reason below."""
    lines = [_cells(_MARKDOWN_HEAD), _cells(("---",) * len(_MARKDOWN_HEAD))]
    reasons: list[str] = []
    for compared in rows:
        row = compared.row
        verdict = compared.verdict.value
        if reason := reason_of(compared):
            if reason not in reasons:
                reasons.append(reason)
            verdict += f" ({reasons.index(reason) + 1})"
        figures = (_figure(row.ours, row), _figure(row.predecessor, row), number(compared.ratio))
        target = row.meaning() + (
            f" ({_figure(row.floor, row)})" if row.target and row.target.of == "floor" else ""
        )
        lines.append(_cells((label_of(row), *figures, target, verdict)))
    notes = [f"{position}. {reason}" for position, reason in enumerate(reasons, start=1)]
    about = "; ".join(f"{name}: {value}" for name, value in comparison.about.items())
    parts = ["\n".join(lines), "\n".join(notes), f"{summary(comparison)} {about}."]
    return "\n\n".join(part for part in parts if part) + "\n"


def readme_block(comparison: Comparison, folder: str, plots: Sequence[str]) -> str:
    """What README shows.

    Args:
        comparison: What was found.
        folder: Where all of it is kept, as README names it.
        plots: The files with images there, and what they show.
    """
    images = "\n".join(f"![{Path(name).stem}]({folder}/{name})" for name in plots)
    whole = f"All rows and images: [{folder}/compare.md]({folder}/compare.md)."
    return "\n\n".join([as_markdown(comparison, comparison.telling).strip(), whole, images])


def results_page(comparison: Comparison, plots: Sequence[str]) -> str:
    """All rows, for a page of their own."""
    images = "\n\n".join(f"![{Path(name).stem}]({name})" for name in plots)
    table = as_markdown(comparison, comparison.rows)
    return f"# agent-dispatch beside its predecessor\n\n{table}\n{images}\n"


def _figure(value: float | None, row: Row) -> str:
    return f"{number(value)} {row.unit}".rstrip() if value is not None else "-"


def _cells(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
