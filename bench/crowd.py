"""m9: what many dispatches cost while they run, and a thousand of them that report."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.fanout import THREADS, is_right, task
from bench.harness import WATCH_EVERY_S, Server, answer_of, timed
from bench.processes import memory_mib, open_files_limit_of, open_files_of, threads_of
from bench.products import Product
from bench.report import Row, Target, at_least, at_most, exactly, row
from bench.steering import Stage, serving, wait_for_standins

COMMON_OPEN_FILES = 1024
"""The soft limit of open files that most systems give, and that servers are started with here."""
MIB_EACH = 1.3
"""What a dispatch may cost beside its agent."""
_QUICK_CALLS = 20
_COMPLETE_S = 120.0
"""How long a crowd may take to be complete."""


@dataclass(frozen=True, kw_only=True)
class Crowd:
    """Dispatches that run at once, and what there is beside their agents."""

    product: str
    asked: int
    running: int
    idle_mib: float
    """PSS of server and helpers before the first."""
    mib: float
    """The same now."""
    server_threads: int
    threads: int
    """Of server and helpers."""
    idle_open_files: int
    """Descriptors of the server before the first."""
    open_files: int

    @property
    def mib_each(self) -> float:
        """What each of them has added."""
        return (self.mib - self.idle_mib) / self.running

    @property
    def open_files_each(self) -> float:
        """How many descriptors each of them takes in the server."""
        return (self.open_files - self.idle_open_files) / self.running


@dataclass(frozen=True, kw_only=True)
class Streams:
    """What became of a crowd whose agents report while they work."""

    crowd: Crowd
    right: int
    """Dispatches that were answered with what their own agent said."""
    recorded: int
    """How many are kept as done."""
    quick_ms: float
    """What `list_agents` takes meanwhile."""
    open_files_limit: int
    """The server's soft limit, whatever it was started with."""


def crowds(
    products: Sequence[Product], root: Path, standin: str, sizes: Sequence[int]
) -> list[Crowd]:
    """Let more and more dispatches run at once; the products' limit must allow for all."""
    found = []
    for product in products:
        stage = Stage(root / product.name, gated=True)
        with ExitStack() as stack:
            server = serving(stack, product, stage, open_files=COMMON_OPEN_FILES)
            idle = _Idle(server, standin)
            asked = 0
            for size in sizes:
                for number in range(asked, size):
                    server.post_call("dispatch", task(number))
                asked = size
                running = len(wait_for_standins(server, standin, size))
                found.append(idle.crowd(product, asked, running))
            server.tree.kill()  # Or its end would be waited for.
    return found


def streams(product: Product, root: Path, standin: str, count: int, seconds: float) -> Streams:
    """Let so many agents work at once, each of them reporting for so long."""
    stage = Stage(root, gated=True, counted=True, seconds=seconds, lines=round(2 * seconds))
    with ExitStack() as stack:
        server = serving(stack, product, stage, open_files=COMMON_OPEN_FILES)
        idle = _Idle(server, standin)
        give_up_at = time.monotonic() + _COMPLETE_S
        sent = [
            server.post_call(product.watched_tool, task(number), watched=True)
            for number in range(count)
        ]
        while stage.peak() < count and time.monotonic() < give_up_at:
            time.sleep(WATCH_EVERY_S)
        quick_s = [timed(server.call, "list_agents", {}) for _ in range(_QUICK_CALLS)]
        crowd = idle.crowd(product, count, stage.peak())
        stage.remove_gate()
        answers = server.answers(sent)
        return Streams(
            crowd=crowd,
            right=sum(is_right(answer_of(answers[s]), number) for number, s in enumerate(sent)),
            recorded=len(server.call("dispatch_jobs", {"status": "done", "limit": 1000})),
            quick_ms=median(quick_s) * 1000,
            open_files_limit=open_files_limit_of(server.pid),
        )


class _Idle:
    """A server before its first dispatch."""

    def __init__(self, server: Server, standin: str) -> None:
        self._server = server
        self._standin = standin
        self._mib = memory_mib(server.tree.pids())[1]
        self._open_files = open_files_of(server.pid)

    def crowd(self, product: Product, asked: int, running: int) -> Crowd:
        """What there is now."""
        tree, pid = self._server.tree, self._server.pid
        agents = set(tree.pids_of(self._standin))
        return Crowd(
            product=product.name,
            asked=asked,
            running=running,
            idle_mib=self._mib,
            mib=memory_mib(other for other in tree.pids() if other not in agents)[1],
            server_threads=threads_of(pid),
            threads=tree.threads() - len(agents),
            idle_open_files=self._open_files,
            open_files=open_files_of(pid),
        )


def rows_of_crowds(found: Sequence[Crowd]) -> list[Row]:
    """The crowds beside each other, and beside their targets."""
    rows = []
    for size in dict.fromkeys(crowd.asked for crowd in found):
        rows += _rows_of_size([crowd for crowd in found if crowd.asked == size], size)
    return rows


def _rows_of_size(found: Sequence[Crowd], size: int) -> list[Row]:
    def figure(name: str, unit: str, value: Callable[[Crowd], float], *targets: Target) -> Row:
        figures = {crowd.product: value(crowd) for crowd in found}
        return row("m9", f"{size} dispatches: {name}", unit, figures, *targets)

    # Fewer would have to bear what there is once, such as the next guard made ahead.
    of_each = [at_most(MIB_EACH)] if size >= 20 else []
    rows = [
        figure("running", "", lambda c: c.running, exactly(size)),
        figure("PSS of each", "MiB", lambda c: c.mib_each, *of_each),
        figure("threads of the server", "", lambda c: c.server_threads, at_most(THREADS)),
        figure("descriptors of each in the server", "", lambda c: c.open_files_each),
    ]
    if size == 50:
        rows += [
            figure("PSS of server and helpers", "MiB", lambda c: c.mib, at_most(110)),
            figure("threads beside one for each", "", lambda c: c.threads - c.running, at_most(12)),
        ]
    return rows


def rows_of_streams(found: Streams) -> list[Row]:
    """The crowd that reports, beside its targets."""
    crowd = found.crowd

    def figure(name: str, unit: str, value: float, *targets: Target) -> Row:
        return row("m9", f"{crowd.asked} reporting: {name}", unit, {crowd.product: value}, *targets)

    return [
        figure("at once", "", crowd.running, exactly(crowd.asked)),
        figure("answered with their own", "", found.right, exactly(crowd.asked)),
        figure("kept as done", "", found.recorded, exactly(crowd.asked)),
        figure("PSS of each", "MiB", crowd.mib_each, at_most(MIB_EACH)),
        figure("threads of the server", "", crowd.server_threads, at_most(THREADS)),
        figure("descriptors of the server", "", crowd.open_files),
        figure("its soft limit of them", "", found.open_files_limit, at_least(crowd.open_files)),
        figure("list_agents meanwhile", "ms", found.quick_ms, at_most(10)),
    ]
