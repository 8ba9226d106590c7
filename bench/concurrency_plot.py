"""The image of `bench.concurrency`: the limit, the time, and the memory of many dispatches."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.crowd import MIB_EACH, Crowd
from bench.drawing import COLOURS, IDEAL, INK, save
from bench.fanout import EACH, MANY, Point

F = TypeVar("F", Point, Crowd)

_TIMED = (MANY, 1, EACH)


def draw(
    path: Path, points: Sequence[Point], crowds: Sequence[Crowd], about: Mapping[str, object]
) -> None:
    """Draw what was found into a file; the same figures give the same file."""

    def plot(figure: Figure) -> None:
        figure.set_size_inches(10.5, 3.9)
        peaks, times, memory = figure.subplots(1, 3)
        _peaks(peaks, points)
        _times(times, points)
        _memory(memory, crowds)

    save(path, plot, about)


def _peaks(axes: Axes, points: Sequence[Point]) -> None:
    asked = [point for point in points if point.load.dispatches > point.load.limit]
    limits = sorted({point.load.limit for point in asked})
    _name(axes, "Agents at once, as they counted", "max_concurrency", "most at once")
    axes.plot(limits, limits, ":", color=IDEAL, label="the limit")
    _curves(axes, asked, lambda point: (point.load.limit, point.peak))
    _logarithmic(axes, limits, limits)


def _times(axes: Axes, points: Sequence[Point]) -> None:
    many = [p for p in points if (p.load.dispatches, p.load.seconds, p.load.tool) == _TIMED]
    limits = sorted({point.load.limit for point in many})
    ideal = {point.load.limit: point.load.ideal_s for point in many}
    _name(axes, f"{MANY} dispatches of 1 s", "max_concurrency", "seconds")
    axes.plot(limits, [ideal[limit] for limit in limits], ":", color=IDEAL, label="ideal")
    _curves(axes, many, lambda point: (point.load.limit, point.wall_s))
    _logarithmic(axes, limits, [2, 5, 10, 20, 40])


def _memory(axes: Axes, crowds: Sequence[Crowd]) -> None:
    _name(axes, "Memory beside the agents", "agents at work", "MiB (PSS) over idle")
    most = max((crowd.running for crowd in crowds), default=0)
    axes.plot([0, most], [0, MIB_EACH * most], ":", color=IDEAL, label=f"{MIB_EACH:g} MiB for each")
    _curves(axes, crowds, lambda crowd: (crowd.running, crowd.mib - crowd.idle_mib))
    axes.legend(frameon=False)
    axes.grid(color="#e5e5e5", linewidth=0.6)


def _curves(axes: Axes, found: Sequence[F], place: Callable[[F], tuple[float, float]]) -> None:
    for name, colour in COLOURS.items():
        curve = sorted({place(one) for one in found if one.product == name})
        if curve:
            axes.plot(*zip(*curve, strict=True), "o-", color=colour, markersize=4, label=name)


def _name(axes: Axes, title: str, across: str, up: str) -> None:
    axes.set_title(title, loc="left", fontweight="bold", color=INK)
    axes.set_xlabel(across)
    axes.set_ylabel(up)


def _logarithmic(axes: Axes, across: Sequence[float], up: Sequence[float]) -> None:
    for axis, set_scale, ticks in (
        (axes.xaxis, axes.set_xscale, across),
        (axes.yaxis, axes.set_yscale, up),
    ):
        set_scale("log")
        axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.legend(frameon=False)
    axes.grid(color="#e5e5e5", linewidth=0.6)
