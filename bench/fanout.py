"""m4: many dispatches at once, at one limit after the other."""

import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.command import Workshop, say
from bench.harness import Server, answer_of, children_cpu_s
from bench.processes import threads_of
from bench.products import Product
from bench.report import Row, Target, at_most, exactly, of_predecessor, row
from bench.steering import Stage, serving

BARE = "bare agents"
"""What stands for the machine: a loop that keeps so many agents going, and does nothing else."""
EACH, TOGETHER = "dispatch", "dispatch_parallel"
"""The tools to ask with: a call for each, sent without waiting in between, or one for all."""
MANY = 200
THREADS = 8
"""Of the server, however many dispatches there are and whatever the limit is."""
OF_IDEAL = {5: 1.03, 20: 1.06, 50: 1.15}
"""How many times as long as their agents alone so many dispatches may take, by the limit."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """What is asked for."""

    limit: int
    dispatches: int
    seconds: float
    """How long each agent works."""
    tool: str = EACH

    @property
    def ideal_s(self) -> float:
        """How long it takes if nothing but the agents does."""
        return math.ceil(self.dispatches / self.limit) * self.seconds

    @property
    def full(self) -> int:
        """How many agents work at once if the limit is used and kept."""
        return min(self.limit, self.dispatches)

    @property
    def is_timed(self) -> bool:
        """Whether it is large enough for the time to say something, and has a target."""
        return self.limit in OF_IDEAL and self.dispatches >= MANY

    def __str__(self) -> str:
        by = "" if self.tool == EACH else f" by one {self.tool}"
        return f"{self.dispatches} x {self.seconds:g} s at limit {self.limit}{by}"


@dataclass(frozen=True, kw_only=True)
class Point:
    """What became of it."""

    product: str
    load: Load
    peak: int
    """How many agents there were at once, as they themselves saw it."""
    right: int
    """Dispatches that were answered with what their own agent said."""
    wall_s: float
    cpu_ms: float
    """CPU time of everything for each dispatch: server, helpers, agent."""
    threads: int
    """Threads of the server, the most that were seen."""

    @property
    def of_ideal(self) -> float:
        """How many times as long as its agents alone it took."""
        return self.wall_s / self.load.ideal_s


def fan_out(workshop: Workshop, loads: Iterable[Load]) -> list[Point]:
    """Put each load on each product in turn, on a new server every time.

    A load that asks with a tool that a product does not have is left out.
    """
    points = []
    for number, load in enumerate(loads):
        say(str(load))
        name = f"load{number}"
        stages = workshop.root / name / "stages"
        if load.is_timed and load.tool == EACH:
            points.append(_bare_point(workshop.environ, workshop.root / f"{name}-bare", load))
        for product in workshop.products(name, limit=load.limit):
            point = _point(product, stages / product.name, load)
            if point is not None:
                points.append(point)
    return points


def _bare_point(environ: Mapping[str, str], folder: Path, load: Load) -> Point:
    stage = Stage(folder, counted=True, seconds=load.seconds)
    environ = {**environ, **stage.environ}
    begun_cpu_s, begun_s = children_cpu_s(), time.perf_counter()
    living: set[int] = set()
    program = shutil.which("claude", path=environ["PATH"])
    assert program is not None
    with open(os.devnull, "wb") as null:
        silent = [(os.POSIX_SPAWN_DUP2, null.fileno(), 1)]
        for number in range(load.dispatches):
            if len(living) == load.limit:
                living.remove(os.wait()[0])
            words = [program, "-p", f"task {number}"]
            living.add(os.posix_spawn(program, words, environ, file_actions=silent))
        while living:
            living.remove(os.wait()[0])
    wall_s = time.perf_counter() - begun_s
    return Point(
        product=BARE,
        load=load,
        peak=stage.peak(),
        right=load.dispatches,
        wall_s=wall_s,
        cpu_ms=(children_cpu_s() - begun_cpu_s) / load.dispatches * 1000,
        threads=0,
    )


def _point(product: Product, folder: Path, load: Load) -> Point | None:
    stage = Stage(folder, counted=True, seconds=load.seconds)
    with ExitStack() as stack:
        server = serving(stack, product, stage)
        if load.tool not in server.tools:
            return None
        server.call("dispatch", task(-1))  # So that no first time is in the figures.
        threads: list[int] = []
        begun_cpu_s, begun_s = server.cpu_s(), time.perf_counter()
        answers = _ask(server, load, lambda: threads.append(threads_of(server.pid)))
        wall_s = time.perf_counter() - begun_s
        return Point(
            product=product.name,
            load=load,
            peak=stage.peak(),
            right=sum(is_right(answer, number) for number, answer in enumerate(answers)),
            wall_s=wall_s,
            cpu_ms=(server.cpu_s() - begun_cpu_s) / load.dispatches * 1000,
            threads=max(threads),
        )


def _ask(server: Server, load: Load, watch: Callable[[], object]) -> list[dict[str, Any]]:
    tasks = [task(number) for number in range(load.dispatches)]
    if load.tool == TOGETHER:
        sent = [server.post_call(TOGETHER, {"dispatches": json.dumps(tasks)})]
        listed: list[dict[str, Any]] = answer_of(server.answers(sent, watch)[sent[0]])
        return listed
    sent = [server.post_call(EACH, one) for one in tasks]
    answers = server.answers(sent, watch)
    return [answer_of(answers[request]) for request in sent]


def task(number: int) -> dict[str, str]:
    """A dispatch that differs from the others, so that no cache answers."""
    return {"agent": "agent0", "task": f"task {number}"}


def is_right(answer: Mapping[str, Any], number: int) -> bool:
    """Whether the agent of this very dispatch has answered."""
    return bool(answer["success"]) and answer["result"] == f"done {number}"


def rows_of(points: Sequence[Point]) -> list[Row]:
    """The points beside each other, and beside their targets."""
    rows = []
    for load in dict.fromkeys(point.load for point in points):
        of_load = {point.product: point for point in points if point.load == load}
        if "agent-dispatch" in of_load:
            rows += _rows_of_load(load, of_load)
    ours = [point for point in points if point.product == "agent-dispatch"]
    wrong = sum(point.load.dispatches - point.right for point in ours)
    threads = [point.threads for point in ours]
    return [
        *rows,
        _row_of_ours("dispatches without their own agent's answer", "", wrong, at_most(0)),
        _row_of_ours("threads of the server, at any limit", "", max(threads), at_most(THREADS)),
    ]


def _rows_of_load(load: Load, points: Mapping[str, Point]) -> list[Row]:
    def figures(value: Callable[[Point], float]) -> dict[str, float]:
        return {name: value(point) for name, point in points.items()}

    peak = row("m4", f"{load}: peak", "", figures(lambda p: p.peak), exactly(load.full))
    if not load.is_timed:
        return [peak]

    def timed(name: str, unit: str, value: Callable[[Point], float], target: Target) -> Row:
        of_each = figures(value)
        floor = of_each.get(BARE)
        return row("m4", f"{load}: {name}", unit, of_each, target, floor=floor, floor_is=BARE)

    return [
        peak,
        timed("wall of ideal", "x", lambda p: p.of_ideal, at_most(OF_IDEAL[load.limit])),
        timed("CPU of each", "ms", lambda p: p.cpu_ms, of_predecessor(0.9)),
    ]


def _row_of_ours(name: str, unit: str, figure: float, *targets: Target) -> Row:
    return row("m4", name, unit, {"agent-dispatch": figure}, *targets)
