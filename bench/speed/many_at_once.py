"""Many dispatches at once: limits and time (m4), what each adds, and a huge answer (m9)."""

import json
import math
import os
import resource
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from typing import Any

from bench.processes import (
    open_files_limit_of,
    open_files_of,
    peak_mib,
    pss_mib,
    reset_peaks,
    rss_mib,
    threads_of,
)
from bench.speed.mcp_client import (
    WATCH_EVERY_S,
    RequestId,
    Server,
    answer_of,
    children_cpu_s,
    timed,
)
from bench.speed.rows import OURS, Row, Target, at_least, at_most, exactly, of_predecessor, row
from bench.speed.workshop import Product, Workshop, is_right, serving, task, warm_servers

BARE = "bare agents"
"""The machine's own limit: a loop that keeps that many agents running and does nothing else."""
EACH, TOGETHER = "dispatch", "dispatch_parallel"
"""The tools used: one call for each task, or one call for all."""
MANY = 200
THREADS = 8
"""The most threads of a server, for any limit and any number of dispatches."""
OF_IDEAL = {5: 1.03, 20: 1.06, 50: 1.15}
"""By the limit: the longest time for `MANY` dispatches, relative to their agents alone."""
MIB_EACH = 1.3
"""The most memory of a dispatch beside its agent."""
COMMON_OPEN_FILES = 1024
"""The soft limit on descriptors of most systems; the servers of crowds are started with it."""
_OPEN_FILES_EACH = 12
"""Descriptors that a dispatch may need in the server, with room."""
_COMPLETE_S = 120.0
_QUICK_CALLS = 20
_MIB = 1 << 20
_LATER_S = 1.0
_TAIL = 100


@dataclass(frozen=True, kw_only=True)
class Load:
    """A number of dispatches of equal length at one limit."""

    limit: int
    dispatches: int
    seconds: float
    tool: str = EACH

    @property
    def ideal_s(self) -> float:
        """The time that the agents alone take."""
        return math.ceil(self.dispatches / self.limit) * self.seconds

    @property
    def full(self) -> int:
        """The number of agents at once if the limit is used fully and kept."""
        return min(self.limit, self.dispatches)

    @property
    def is_timed(self) -> bool:
        """Whether the load has a target for its time; small loads do not."""
        return self.limit in OF_IDEAL and self.dispatches >= MANY

    def __str__(self) -> str:
        by = "" if self.tool == EACH else f" by one {self.tool}"
        return f"{self.dispatches} x {self.seconds:g} s at limit {self.limit}{by}"


Figures = Mapping[str, float]
"""The figures of one product for a load.

`peak`: the most agents at once, as they counted themselves. `right`: dispatches answered with the
words of their own agent. `cpu_ms`: CPU time of each dispatch with its agent. `threads`: the most
threads of the server. `wall_s`.
"""


def fan_out(shop: Workshop, loads: Iterable[Load]) -> list[Row]:
    """Give each load to each product in turn, with a new server every time.

    A product without the tool of a load is left out.
    """
    rows: list[Row] = []
    wrong, threads = 0.0, 0.0
    for load in loads:
        points: dict[str, Figures] = {}
        if load.is_timed and load.tool == EACH:
            points[BARE] = _bare_point(shop, load)
        for product in shop.products(limit=load.limit):
            if point := _point(shop, product, load):
                points[product.name] = point
        rows += rows_of_load(load, points)
        wrong += load.dispatches - points[OURS]["right"]
        threads = max(threads, points[OURS]["threads"])
    return [
        *rows,
        row("m4", "dispatches without their own agent's answer", "", {OURS: wrong}, at_most(0)),
        row("m4", "threads of the server, at any limit", "", {OURS: threads}, at_most(THREADS)),
    ]


def rows_of_load(load: Load, points: Mapping[str, Figures]) -> list[Row]:
    """The points of one load, by the product."""
    peaks = {name: point["peak"] for name, point in points.items()}
    rows = [row("m4", f"{load}: peak", "", peaks, exactly(load.full))]
    if load.is_timed:
        of_ideal = {name: point["wall_s"] / load.ideal_s for name, point in points.items()}
        cpu_ms = {name: point["cpu_ms"] for name, point in points.items()}
        for name, unit, figures, target in (
            ("wall of ideal", "x", of_ideal, at_most(OF_IDEAL[load.limit])),
            ("CPU of each", "ms", cpu_ms, of_predecessor(0.9)),
        ):
            floor = (figures[BARE], BARE) if BARE in figures else None
            rows.append(row("m4", f"{load}: {name}", unit, figures, target, floor=floor))
    return rows


def _bare_point(shop: Workshop, load: Load) -> Figures:
    stage = shop.stage(counted=True, seconds=load.seconds)
    environ = {**shop.environ, **stage.environ}
    begun_cpu_s, begun_s = children_cpu_s(), time.perf_counter()
    alive: set[int] = set()
    program = shutil.which("claude", path=environ["PATH"])
    assert program is not None
    with open(os.devnull, "wb") as null:
        silent = [(os.POSIX_SPAWN_DUP2, null.fileno(), 1)]
        for number in range(load.dispatches):
            if len(alive) == load.limit:
                alive.remove(os.wait()[0])
            words = [program, "-p", f"task {number}"]
            alive.add(os.posix_spawn(program, words, environ, file_actions=silent))
        while alive:
            alive.remove(os.wait()[0])
    return {
        "peak": stage.peak(),
        "right": load.dispatches,
        "wall_s": time.perf_counter() - begun_s,
        "cpu_ms": (children_cpu_s() - begun_cpu_s) / load.dispatches * 1000,
    }


def _point(shop: Workshop, product: Product, load: Load) -> Figures | None:
    stage = shop.stage(counted=True, seconds=load.seconds)
    with ExitStack() as stack:
        [server] = warm_servers(stack, [product], stage).values()
        if load.tool not in server.tools:
            return None
        threads: list[int] = []
        begun_cpu_s, begun_s = server.cpu_s(), time.perf_counter()
        answers = _ask(server, load, lambda: threads.append(threads_of(server.pid)))
        return {
            "wall_s": time.perf_counter() - begun_s,
            "cpu_ms": (server.cpu_s() - begun_cpu_s) / load.dispatches * 1000,
            "peak": stage.peak(),
            "right": sum(is_right(answer, number) for number, answer in enumerate(answers)),
            "threads": max(threads),
        }


def _ask(server: Server, load: Load, watch: Callable[[], object]) -> list[dict[str, Any]]:
    tasks = [task(number) for number in range(load.dispatches)]
    if load.tool == TOGETHER:
        sent = server.post_call(TOGETHER, {"dispatches": json.dumps(tasks)})
        listed: list[dict[str, Any]] = answer_of(server.answers([sent], watch)[sent])
        return listed
    requests = [server.post_call(EACH, one) for one in tasks]
    answers = server.answers(requests, watch)
    return [answer_of(answers[request]) for request in requests]


class Crowd:
    """Measures what concurrent dispatches add to an idle server."""

    def __init__(self, shop: Workshop, server: Server) -> None:
        """Measure the server before its first dispatch."""
        self._shop, self._server = shop, server
        self._idle_mib = pss_mib(server.tree.pids())
        self._idle_open_files = open_files_of(server.pid)

    def look(self, running: int) -> dict[str, float]:
        """The figures while this many dispatches run."""
        server, helpers = self._server, self._shop.helpers(self._server)
        mib, open_files = pss_mib(helpers), open_files_of(server.pid)
        return {
            "running": running,
            "PSS of each": (mib - self._idle_mib) / running,
            "threads of the server": threads_of(server.pid),
            "descriptors of each in the server": (open_files - self._idle_open_files) / running,
            "PSS of server and helpers": mib,
            "threads beside one for each": sum(map(threads_of, helpers)) - running,
            "descriptors of the server": open_files,
        }


def crowds(shop: Workshop, sizes: Sequence[int]) -> list[Row]:
    """Let more and more dispatches run at once, all within the limit."""
    found: dict[int, dict[str, dict[str, float]]] = {size: {} for size in sizes}
    for product in shop.products(limit=max(sizes)):
        with ExitStack() as stack:
            stage = shop.stage(gated=True)
            server = serving(stack, product, stage, open_files=COMMON_OPEN_FILES)
            crowd = Crowd(shop, server)
            asked = 0
            for size in sizes:
                for number in range(asked, size):
                    server.post_call("dispatch", task(number))
                asked = size
                running = len(shop.wait_for_agents(server, size))
                found[size][product.name] = crowd.look(running)
            server.tree.kill()  # Otherwise its exit waits for the agents.
    return [row for size, figures in found.items() for row in _rows_of_crowd(size, figures)]


def _rows_of_crowd(size: int, figures: Mapping[str, Mapping[str, float]]) -> list[Row]:
    wanted: list[tuple[str, str, list[Target]]] = [
        ("running", "", [exactly(size)]),
        # For a small crowd, the one-time costs of a server would dominate.
        ("PSS of each", "MiB", [at_most(MIB_EACH)] if size >= 20 else []),
        ("threads of the server", "", [at_most(THREADS)]),
        ("descriptors of each in the server", "", []),
    ]
    if size == 50:
        wanted.append(("PSS of server and helpers", "MiB", [at_most(110)]))
        wanted.append(("threads beside one for each", "", [at_most(12)]))
    return [
        row("m9", f"{size} dispatches: {name}", unit, _of_each(figures, name), *targets)
        for name, unit, targets in wanted
    ]


def _of_each(figures: Mapping[str, Mapping[str, float]], name: str) -> dict[str, float]:
    return {product: found[name] for product, found in figures.items()}


def streams(shop: Workshop, count: int, seconds: float) -> list[Row]:
    """Let `count` agents of our product report at once, each for the given time.

    Raises:
        RuntimeError: The hard limit on descriptors is too low.
    """
    needed, hard = count * _OPEN_FILES_EACH, resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise RuntimeError(f"{count} dispatches need `ulimit -Hn {needed}`, and it is {hard}")
    product = shop.products(limit=count)[0]
    stage = shop.stage(gated=True, counted=True, seconds=seconds, lines=round(2 * seconds))
    with ExitStack() as stack:
        server = serving(stack, product, stage, open_files=COMMON_OPEN_FILES)
        crowd = Crowd(shop, server)
        give_up_at = time.monotonic() + _COMPLETE_S
        sent: list[RequestId] = [
            server.post_call(product.watched_tool, task(number), watched=True)
            for number in range(count)
        ]
        while stage.peak() < count and time.monotonic() < give_up_at:
            time.sleep(WATCH_EVERY_S)
        quick_s = [timed(server.call, "list_agents", {}) for _ in range(_QUICK_CALLS)]
        found = crowd.look(stage.peak())
        stage.remove_gate()
        answers = server.answers(sent)
        right = sum(is_right(answer_of(answers[s]), number) for number, s in enumerate(sent))
        recorded = len(server.call("dispatch_jobs", {"status": "done", "limit": 1000}))
        limit = open_files_limit_of(server.pid)
    open_files = found["descriptors of the server"]
    rows: list[tuple[str, str, float, list[Target]]] = [
        ("at once", "", found["running"], [exactly(count)]),
        ("answered with their own", "", right, [exactly(count)]),
        ("kept as done", "", recorded, [exactly(count)]),
        ("PSS of each", "MiB", found["PSS of each"], [at_most(MIB_EACH)]),
        ("threads of the server", "", found["threads of the server"], [at_most(THREADS)]),
        ("descriptors of the server", "", open_files, []),
        ("its soft limit of them", "", limit, [at_least(open_files)]),
        ("list_agents meanwhile", "ms", median(quick_s) * 1000, [at_most(10)]),
    ]
    return [
        row("m9", f"{count} reporting: {name}", unit, {OURS: value}, *targets)
        for name, unit, value, targets in rows
    ]


def large_answer(shop: Workshop, size_mib: int) -> list[Row]:
    """One dispatch with a huge answer: its time, its memory and its bytes on the wire."""
    figures = {p.name: _one_large(shop, p, size_mib * _MIB) for p in shop.products()}
    return [
        row("m9", f"answer of {size_mib} MiB: {name}", unit, _of_each(figures, name), target)
        for name, unit, target in (
            ("wall", "s", of_predecessor(0.6)),
            ("on the wire", "MiB", at_most(0.2)),
            ("peak RSS over idle", "MiB", at_most(3 * size_mib)),
            ("PSS over idle 1 s later", "MiB", of_predecessor(0.1)),
        )
    ]


def _one_large(shop: Workshop, product: Product, size: int) -> dict[str, float]:
    with ExitStack() as stack:
        server = serving(stack, product, shop.stage(answer_bytes=size))
        server.call("list_agents", {})
        # A guard that is forked later shares its memory with these and never sees the answer.
        pids = server.tree.pids()
        reset_peaks(pids)
        idle_rss_mib = {pid: rss_mib([pid]) for pid in pids}
        idle_pss_mib = pss_mib(pids)
        received, begun = server.received_bytes, time.perf_counter()
        answer = server.call("dispatch", task(0))
        figures = {
            "wall": time.perf_counter() - begun,
            "on the wire": (server.received_bytes - received) / _MIB,
            "peak RSS over idle": sum(
                max(peak_mib([pid]) - idle_mib, 0) for pid, idle_mib in idle_rss_mib.items()
            ),
        }
        time.sleep(_LATER_S)
        figures["PSS over idle 1 s later"] = pss_mib(pids) - idle_pss_mib
        _require_whole(server, answer, size)
    return figures


def _require_whole(server: Server, answer: Any, size: int) -> None:
    """Fail unless the whole answer is inline or can be fetched."""
    available, tail = len(answer["result"]), answer["result"][-_TAIL:]
    if answer.get("truncated"):
        where = {"ref": answer["job_id"], "offset": size - _TAIL}
        available, tail = answer["full_size"], server.call("fetch_result", where)["result"]
    if available != size or tail != "." * _TAIL:
        raise RuntimeError(f"{available} of {size} characters are available, ending with {tail!r}")
