"""m10: what is left when a server ends, by each of the ways in which clients end them."""

import os
import select
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from bench.harness import Server
from bench.products import Product
from bench.report import Row, at_least, at_most, row
from bench.steering import Stage, serving, submit, wait_for, wait_for_standins

AFTER_S = 3.0
"""When we look what is left."""
_READ_S = 5.0
"""How long a new server may take to say how a job ended."""
WAYS: Mapping[str, int | None] = {
    "EOF": None,
    "TERM": signal.SIGTERM,
    "INT": signal.SIGINT,
    "KILL": signal.SIGKILL,
}


@dataclass(kw_only=True)
class Left:
    """What the ends of one product's servers left behind."""

    children: int = 0
    servers: int = 0
    finished: int = 0
    """Background jobs that went on to their end, as a new server tells."""
    stale: int = 0
    """Jobs that are said to go on, with no process behind them."""
    child_s: list[float] = field(default_factory=list)
    server_s: list[float] = field(default_factory=list)


def endings(products: Sequence[Product], root: Path, standin: str) -> list[Row]:
    """m10: servers with a call, and with a background job, each ended in every way."""
    calls = {p.name: _end_calls(p, root / "calls", standin) for p in products}
    jobs = {p.name: _end_with_jobs(p, root / "jobs", standin) for p in products}
    after = f"{AFTER_S:.0f} s after EOF, TERM, INT, KILL"
    worst = {name: max(left.child_s) * 1000 for name, left in calls.items()}
    exits, up = {}, {}
    for name, left in calls.items():
        exits[name] = max(left.server_s + jobs[name].server_s) * 1000
        up[name] = left.servers + jobs[name].servers
    return [
        row("m10", f"call: children alive {after}", "", _each(calls, "children"), at_most(0)),
        row("m10", "call: worst time to the child's death", "ms", worst, at_most(450)),
        row("m10", "worst time to the server's exit", "ms", exits, at_most(450)),
        row("m10", f"servers still up (of {2 * len(WAYS)})", "", up, at_most(0)),
        row("m10", f"background: alive {after}", "", _each(jobs, "children"), at_least(len(WAYS))),
        row("m10", "background: done, says a new server", "", _each(jobs, "finished"), at_least(4)),
        row("m10", "background: said to run, by nobody", "", _each(jobs, "stale"), at_most(0)),
    ]


def _each(lefts: Mapping[str, Left], what: str) -> dict[str, float]:
    return {name: getattr(left, what) for name, left in lefts.items()}


def _end_calls(product: Product, root: Path, standin: str) -> Left:
    left = Left()
    for way, signum in WAYS.items():
        with ExitStack() as stack:
            server = serving(stack, product, Stage(root / f"{product.name}-{way}", gated=True))
            server.post_call("dispatch", {"agent": "agent0", "task": way})
            [child] = wait_for_standins(server, standin, 1)
            child_s, server_s = _end(server, signum, [child, server.pid])
            left.child_s.append(child_s)
            left.server_s.append(server_s)
            left.children += child_s >= AFTER_S
            left.servers += server_s >= AFTER_S
            server.tree.kill()  # Or it would be waited for.
    return left


def _end_with_jobs(product: Product, root: Path, standin: str) -> Left:
    left = Left()
    going: list[tuple[Server, Stage, str]] = []
    with ExitStack() as stack:
        for way, signum in WAYS.items():
            stage = Stage(root / f"{product.name}-{way}", gated=True)
            server = serving(stack, product, stage)
            job_id = submit(server)
            wait_for_standins(server, standin, 1)
            [server_s] = _end(server, signum, [server.pid])
            left.server_s.append(server_s)
            left.servers += server_s >= AFTER_S
            going.append((server, stage, job_id))
        time.sleep(AFTER_S)
        reader = serving(stack, product)
        for server, stage, job_id in going:
            alive = bool(server.tree.pids_of(standin))
            left.children += alive
            if alive:
                stage.open_gate()
            status = wait_for(reader, job_id, _READ_S)["status"]
            left.finished += status == "done"
            left.stale += status in ("pending", "running")
            server.tree.kill()
    return left


def _end(server: Server, signum: int | None, pids: Sequence[int]) -> list[float]:
    """End a server; the seconds until each of some processes is gone, at most `AFTER_S`."""
    fds = [os.pidfd_open(pid) for pid in pids]
    took_s = [AFTER_S] * len(fds)
    waiting = list(fds)
    begun = time.perf_counter()
    if signum is None:
        server.close_stdin()
    else:
        os.kill(server.pid, signum)
    while waiting and (left_s := begun + AFTER_S - time.perf_counter()) > 0:
        for fd in select.select(waiting, [], [], left_s)[0]:
            took_s[fds.index(fd)] = time.perf_counter() - begun
            waiting.remove(fd)
    for fd in fds:
        os.close(fd)
    return took_s
