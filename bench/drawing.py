"""Images of figures: SVG files that are the same for the same figures.

Needs Matplotlib, the dependency group `bench` (`uv run --group bench python -m …`).
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

OURS, THEIRS, IDEAL, INK = "#0b6e4f", "#9a9a9a", "#c9a227", "#222222"
COLOURS: Mapping[str, str] = {"agent-dispatch": OURS, "predecessor": THEIRS}

_CAPTION_CHARS = 118
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


def save(path: Path, plot: Callable[[Figure], None], about: Mapping[str, object]) -> None:
    """Draw an image into a file.

    Args:
        path: The file.
        plot: Draws on the figure.
        about: What is said below it: command, versions, machine.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(layout="constrained")
        plot(figure)
        caption = "\n".join(caption_lines(about))
        figure.supxlabel(caption, x=0.01, ha="left", fontsize=6.5, color="#666666")
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})


def caption_lines(about: Mapping[str, object]) -> list[str]:
    """What is known of a run, in lines that fit below an image."""
    lines: list[str] = []
    for part in (f"{name}: {value}" for name, value in about.items()):
        if lines and len(lines[-1]) + len(part) + 2 <= _CAPTION_CHARS:
            lines[-1] += f"; {part}"
        else:
            lines.append(part)
    return lines
