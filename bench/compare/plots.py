"""The images of `bench.compare`: SVG files that are the same for the same figures.

Needs Matplotlib, the dependency group `bench` (`uv run --group bench python -m …`).
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from bench.compare.comparison import Compared, Comparison, gain, is_worse, label_of
from bench.speed.rows import number

_OURS, _THEIRS, _IDEAL, _INK = "#0b6e4f", "#9a9a9a", "#c9a227", "#222222"
_BEHIND, _LINES = "#b3261e", "#e5e5e5"
_WIDTH_IN = 8.5
_CAPTION_CHARS = 118
# Fixed ids and no date, so that equal figures give equal files.
_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "agent-dispatch",
    # Text stays text: a tenth of the size, and readable by search and screen readers.
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
}
_REAL_CLI = {
    "dispatch of the real CLI, wall": "dispatch",
    "registered: bare claude -p, wall": "bare claude -p,\nregistered",
    "registered: dispatch, wall": "dispatch,\nregistered",
    "dialogue of 3 rounds, wall": "dialogue,\n6 turns",
}


def draw(comparison: Comparison, folder: Path) -> list[str]:
    """Draw the images for which there are figures; returns the names of the files, in order."""
    plots: Mapping[str, tuple[Callable[[Sequence[Compared], Figure], None], list[Compared]]] = {
        "compare-fan-out.svg": (_fan_out, _named(comparison, r"at limit \d+: wall of ideal$")),
        "compare-gains.svg": (
            _gains,
            [compared for compared in comparison.telling if gain(compared.row) is not None],
        ),
        "compare-listing.svg": (_listing, _named(comparison, r"^newest \d+ of \d+$")),
        "compare-real-cli.svg": (
            _real_cli,
            [compared for compared in comparison.rows if compared.row.name in _REAL_CLI],
        ),
    }
    drawn = {name: (paint, found) for name, (paint, found) in plots.items() if found}
    for name, (paint, found) in drawn.items():
        _save(folder / name, partial(paint, found), comparison.about)
    return list(drawn)


def _save(path: Path, paint: Callable[[Figure], None], about: Mapping[str, object]) -> None:
    with matplotlib.rc_context(_STYLE):
        figure = Figure(layout="constrained")
        paint(figure)
        caption = "\n".join(_caption_lines(about))
        figure.supxlabel(caption, x=0.01, ha="left", fontsize=6.5, color="#666666")
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})


def _caption_lines(about: Mapping[str, object]) -> list[str]:
    """The description of the run, in lines that fit below an image."""
    lines: list[str] = []
    for part in (f"{name}: {value}" for name, value in about.items()):
        if lines and len(lines[-1]) + len(part) + 2 <= _CAPTION_CHARS:
            lines[-1] += f"; {part}"
        else:
            lines.append(part)
    return lines


def _gains(found: Sequence[Compared], figure: Figure) -> None:
    """How many times better each figure is."""
    title = "How many times better than the predecessor"
    axes = _axes(figure, title, height_in=0.2 * len(found) + 1.6)
    for height, compared in enumerate(reversed(found)):
        times = gain(compared.row) or 1
        colour = _BEHIND if is_worse(compared.row) else _OURS
        axes.plot([1, times], [height, height], color=colour, linewidth=2, alpha=0.5)
        axes.plot(times, height, "o", color=colour, markersize=5)
        beside, offset = (max(times, 1), height), (7, 0)
        axes.annotate(
            f"{number(times)} x",
            beside,
            xytext=offset,
            textcoords="offset points",
            va="center",
            fontsize=7,
            color=_INK,
        )
    names = [label_of(compared.row) for compared in reversed(found)]
    axes.axvline(1, color=_INK, linewidth=0.8)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_yticks(range(len(names)), names, fontsize=7.5)
    axes.set_ylim(-0.7, len(names) - 0.3)
    axes.set_xlabel("times better; left of 1 the predecessor is better")
    axes.grid(axis="x", color=_LINES, linewidth=0.6)


def _fan_out(found: Sequence[Compared], figure: Figure) -> None:
    """How long many dispatches take, by the limit."""
    axes = _axes(figure, "200 dispatches at once, over the time of their agents alone")
    labels = [f"limit {_number_in(compared, r'limit (.*):')}" for compared in found]
    _bars(axes, labels, found)
    axes.axhline(1, color=_IDEAL, linewidth=1.2, label="ideal")
    axes.set_ylabel("times the ideal")
    axes.legend(frameon=False)


def _listing(found: Sequence[Compared], figure: Figure) -> None:
    """How long a listing takes, by the length of the history."""
    axes = _axes(figure, "dispatch_jobs(limit=50) beside a history")
    sizes = [_number_in(compared, r"of (.*)$") for compared in found]
    rows = [compared.row for compared in found]
    curves = {
        "agent-dispatch": ("o-", _OURS, [row.ours for row in rows]),
        "predecessor": ("s-", _THEIRS, [row.predecessor or 0 for row in rows]),
        rows[0].floor_is: (":", _IDEAL, [row.floor or 0 for row in rows]),
    }
    for name, (line, colour, values) in curves.items():
        axes.plot(sizes, values, line, color=colour, label=name)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.yaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.set_xlabel("jobs on record")
    axes.set_ylabel("ms")
    axes.grid(color=_LINES, linewidth=0.6)
    axes.legend(frameon=False)


def _real_cli(found: Sequence[Compared], figure: Figure) -> None:
    """The time of the real CLI with each product."""
    axes = _axes(figure, "With the real Claude Code CLI")
    _bars(axes, [_REAL_CLI[compared.row.name] for compared in found], found)
    for place, compared in enumerate(found):
        label = "bare claude -p, as often" if place == 0 else None
        floor = compared.row.floor or 0
        axes.plot([place - 0.4, place + 0.4], [floor, floor], color=_IDEAL, label=label)
    axes.set_ylabel("seconds")
    axes.legend(frameon=False)


def _named(comparison: Comparison, pattern: str) -> list[Compared]:
    return [compared for compared in comparison.rows if re.search(pattern, compared.row.name)]


def _number_in(compared: Compared, pattern: str) -> int:
    found = re.search(pattern, compared.row.name)
    assert found is not None
    return int(found[1])


def _axes(figure: Figure, title: str, *, height_in: float = 3.2) -> Axes:
    figure.set_size_inches(_WIDTH_IN, height_in)
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontweight="bold", color=_INK)
    return axes


def _bars(axes: Axes, labels: Sequence[str], found: Sequence[Compared]) -> None:
    figures = (
        ("agent-dispatch", _OURS, [compared.row.ours for compared in found]),
        ("predecessor", _THEIRS, [compared.row.predecessor or 0 for compared in found]),
    )
    for side, (name, colour, values) in enumerate(figures):
        places = [place + (side - 0.5) * 0.4 for place in range(len(found))]
        bars = axes.bar(places, values, width=0.38, color=colour, label=name)
        texts = [f"{value:.2f}" for value in values]
        axes.bar_label(bars, texts, fontsize=8, padding=2)
    axes.set_xticks(range(len(labels)), labels)
