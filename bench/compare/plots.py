"""Images of a comparison: SVG files that are the same for the same figures.

Needs Matplotlib (`uv run --group bench python -m bench.compare ...`).
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from bench.compare.document import Comparison
from bench.compare.reasons import label_of
from bench.compare.verdict import Compared, gain, is_worse

_OURS, _THEIRS, _FLOOR, _WORSE = "#0b6e4f", "#9a9a9a", "#c9a227", "#b3261e"
_INK = "#222222"
_NAMES = ("agent-dispatch", "predecessor")
_CAPTION_IN_CHARACTERS = 118
# Fixed ids and no date, or each run would give another file.
_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "agent-dispatch",
    # Text stays text: a tenth of the size, and it can be searched and read aloud.
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
}


def draw(comparison: Comparison, folder: Path) -> list[str]:
    """Draw what can be drawn of it into a folder; the names of the files, in order."""
    drawn = []
    for name, plot in sorted(_PLOTS.items()):
        with matplotlib.rc_context(_STYLE):
            figure = plot(comparison)
            if figure is not None:
                _add_caption(figure, comparison.about)
                figure.savefig(folder / name, metadata={"Date": None, "Creator": None})
                drawn.append(name)
    return drawn


def _gains(comparison: Comparison) -> Figure | None:
    """How many times better each telling figure is."""
    gains = [(compared, gain(compared.row)) for compared in comparison.telling]
    known = [(compared, times) for compared, times in gains if times is not None][::-1]
    if not known:
        return None
    figure, axes = _figure("How many times better than the predecessor", 0.2 * len(known) + 1.6)
    for height, (compared, times) in enumerate(known):
        colour = _WORSE if is_worse(compared.row) else _OURS
        axes.plot([1, times], [height, height], color=colour, linewidth=2, alpha=0.5)
        axes.plot(times, height, "o", color=colour, markersize=5)
        axes.annotate(
            f"{times:.3g} x",
            (max(times, 1), height),
            xytext=(7, 0),
            textcoords="offset points",
            va="center",
            fontsize=7,
            color=_INK,
        )
    axes.axvline(1, color=_INK, linewidth=0.8)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_yticks(
        range(len(known)), [label_of(compared.row) for compared, _ in known], fontsize=7.5
    )
    axes.set_ylim(-0.7, len(known) - 0.3)
    axes.set_xlabel("times better; left of 1 the predecessor is better")
    axes.grid(axis="x", color="#e5e5e5", linewidth=0.6)
    return figure


def _fan_out(comparison: Comparison) -> Figure | None:
    """How long many dispatches take, by the limit."""
    found = list(_by_number(comparison, r"at limit (\d+): wall of ideal"))
    if not found:
        return None
    figure, axes = _figure("200 dispatches at once, over the time of their agents alone", 3.2)
    labels = [f"limit {limit}" for limit, _ in found]
    _bars(axes, labels, [compared for _, compared in found], "{:.2f}")
    axes.axhline(1, color=_FLOOR, linewidth=1.2, label="ideal")
    axes.set_ylabel("times the ideal")
    axes.legend(frameon=False)
    return figure


def _listing(comparison: Comparison) -> Figure | None:
    """How long a listing takes, by the length of the history."""
    found = list(_by_number(comparison, r"^newest 50 of (\d+)$"))
    if len(found) < 2:
        return None
    figure, axes = _figure("dispatch_jobs(limit=50) beside a history", 3.2)
    sizes = [size for size, _ in found]
    rows = [compared.row for _, compared in found]
    axes.plot(sizes, [row.ours for row in rows], "o-", color=_OURS, label=_NAMES[0])
    axes.plot(sizes, [row.predecessor or 0 for row in rows], "s-", color=_THEIRS, label=_NAMES[1])
    axes.plot(sizes, [row.floor or 0 for row in rows], ":", color=_FLOOR, label=rows[0].floor_is)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.minorticks_off()
    axes.set_xlabel("jobs on record")
    axes.set_ylabel("ms")
    axes.grid(color="#e5e5e5", linewidth=0.6)
    axes.legend(frameon=False)
    return figure


def _real_cli(comparison: Comparison) -> Figure | None:
    """What the real CLI takes with either of them."""
    labels = {
        "dispatch of the real CLI, wall": "dispatch",
        "registered: bare claude -p, wall": "bare claude -p,\nregistered",
        "registered: dispatch, wall": "dispatch,\nregistered",
        "dialogue of 3 rounds, wall": "dialogue,\n6 turns",
    }
    found = [compared for compared in comparison.rows if compared.row.name in labels]
    if not found:
        return None
    figure, axes = _figure("With the real Claude Code CLI", 3.2)
    _bars(axes, [labels[compared.row.name] for compared in found], found, "{:.2f}")
    for place, compared in enumerate(found):
        floor = compared.row.floor or 0
        label = "bare claude -p, as often" if place == 0 else None
        axes.plot([place - 0.4, place + 0.4], [floor, floor], color=_FLOOR, label=label)
    axes.set_ylabel("seconds")
    axes.legend(frameon=False)
    return figure


_PLOTS: Mapping[str, Callable[[Comparison], Figure | None]] = {
    "compare-gains.svg": _gains,
    "compare-fan-out.svg": _fan_out,
    "compare-listing.svg": _listing,
    "compare-real-cli.svg": _real_cli,
}


def _by_number(comparison: Comparison, pattern: str) -> Iterator[tuple[int, Compared]]:
    for compared in comparison.rows:
        if found := re.search(pattern, compared.row.name):
            yield int(found[1]), compared


def _figure(title: str, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8.5, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontweight="bold", color=_INK)
    return figure, axes


def _bars(axes: Axes, labels: Sequence[str], found: Sequence[Compared], form: str) -> None:
    figures = {
        _NAMES[0]: [compared.row.ours for compared in found],
        _NAMES[1]: [compared.row.predecessor or 0 for compared in found],
    }
    for number, (name, values) in enumerate(figures.items()):
        places = [place + (number - 0.5) * 0.4 for place in range(len(found))]
        colour = (_OURS, _THEIRS)[number]
        bars = axes.bar(places, values, width=0.38, color=colour, label=name)
        axes.bar_label(bars, [form.format(value) for value in values], fontsize=8, padding=2)
    axes.set_xticks(range(len(labels)), labels)


def _add_caption(figure: Figure, about: Mapping[str, str]) -> None:
    lines, line = [], ""
    for part in (f"{name}: {value}" for name, value in about.items()):
        if line and len(line) + len(part) + 2 > _CAPTION_IN_CHARACTERS:
            lines.append(line)
            line = part
        else:
            line = f"{line}; {part}" if line else part
    figure.supxlabel("\n".join([*lines, line]), x=0.01, ha="left", fontsize=6.5, color="#666666")
