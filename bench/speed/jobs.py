"""Background jobs: one by one (m5), many at once (m9), after the end of their server (m10)."""

import os
import select
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from bench.processes import pss_mib
from bench.speed.mcp_client import Server
from bench.speed.rows import OURS, Row, Samples, at_least, at_most, of_predecessor, p95, row
from bench.speed.workshop import (
    Product,
    Stage,
    Workshop,
    post_wait,
    serving,
    submit,
    submit_many,
    task,
    wait_for,
)

MANY = 100
AT_ONCE = 50
AFTER_S = 3.0
"""The time after the end of a server when leftovers are counted."""
WAYS: Mapping[str, int | None] = {
    "EOF": None,
    "TERM": signal.SIGTERM,
    "INT": signal.SIGINT,
    "KILL": signal.SIGKILL,
}
_WARM_UP = 3
_WAITING_S = 0.05
"""The longest time until a `dispatch_wait` is waiting."""
_READ_S = 5.0
"""The longest time until a new server reports how a job ended."""


def submissions(shop: Workshop, rounds: int) -> list[Row]:
    """A background job from the call to its answer, and to its running agent."""
    answered, started = Samples(), Samples()
    durable: list[float] = []
    products, folder = shop.products(), shop.folder()
    stages = {product.name: shop.stage() for product in products}
    with ExitStack() as stack:
        servers = {p.name: serving(stack, p, stages[p.name]) for p in products}
        for number in range(_WARM_UP + rounds):
            durable.append(durable_write_s(folder))
            for name, server in servers.items():
                begun = time.monotonic()
                job_id = submit(server, number)
                answered_s = time.monotonic() - begun
                job = wait_for(server, job_id)
                if job["status"] != "done":
                    raise RuntimeError(f"the job failed: {job}")
                if number >= _WARM_UP:
                    answered[name].append(answered_s)
                    started[name].append(stages[name].stamp("start") - begun)
    floor = (median(durable) * 1000, "durable write")
    to_answer, to_start = "dispatch_async to its answer", "dispatch_async to its agent running"
    late = of_predecessor(0.6)
    return [
        row("m5", to_answer, "ms", answered.medians(1000), at_most(8), floor=floor),
        row("m5", f"{to_answer}, p95", "ms", answered.each(p95, 1000), late),
        # A worker imports the run loop after it has answered; a bare `claude -p` takes 450 ms.
        row("m5", to_start, "ms", started.medians(1000), at_most(300)),
        row("m5", f"{to_start}, p95", "ms", started.each(p95, 1000), late),
    ]


def wake_ups(shop: Workshop, rounds: int) -> list[Row]:
    """The time from an agent's end, by its own clock, to the answer of `dispatch_wait`."""
    woke = Samples()
    products = shop.products()
    stages = {product.name: shop.stage(gated=True) for product in products}
    with ExitStack() as stack:
        servers = {p.name: serving(stack, p, stages[p.name]) for p in products}
        for number in range(_WARM_UP + rounds):
            for name, server in servers.items():
                sent = post_wait(server, submit(server, number))
                time.sleep(_WAITING_S)
                stages[name].open_gate()
                server.answers([sent])
                answered = time.monotonic()
                if number >= _WARM_UP:
                    woke[name].append(answered - stages[name].stamp("end"))
    name = "dispatch_wait after the agent's end"
    return [
        row("m5", name, "ms", woke.medians(1000), at_most(10)),
        row("m5", f"{name}, p95", "ms", woke.each(p95, 1000), at_most(25)),
    ]


def a_hundred(shop: Workshop, rounds: int) -> list[Row]:
    """Many instant jobs, submitted in a row and all waited for."""
    walls, cpu, done = Samples(), Samples(), Samples()
    with ExitStack() as stack:
        servers = {p.name: serving(stack, p, shop.stage()) for p in shop.products()}
        for server in servers.values():
            wait_for(server, submit(server))
        for _ in range(rounds):
            for name, server in servers.items():
                begun, begun_cpu = time.monotonic(), server.cpu_s()
                jobs = [wait_for(server, job_id) for job_id in submit_many(server, range(MANY))]
                walls[name].append(time.monotonic() - begun)
                cpu[name].append((server.cpu_s() - begun_cpu) / MANY)
                done[name].append(sum(job["status"] == "done" for job in jobs))
    name, goal = f"{MANY} instant jobs", of_predecessor(0.6)
    return [
        row("m5", f"{name}: answered", "", done.each(min), at_least(MANY)),
        row("m5", f"{name}, wall", "s", walls.medians(), goal),
        row("m5", f"{name}: CPU of each, with the child", "ms", cpu.medians(1000), goal),
    ]


def at_once(shop: Workshop) -> list[Row]:
    """The memory and threads that jobs take while they run."""
    running: dict[str, float] = {}
    threads: dict[str, float] = {}
    growth: dict[int, dict[str, float]] = defaultdict(dict)
    family: dict[int, float] = {}
    for product in shop.products(limit=AT_ONCE):
        with ExitStack() as stack:
            server = serving(stack, product, shop.stage(gated=True))
            idle_mib = pss_mib(shop.helpers(server))
            asked = 0
            for count in (1, 20, AT_ONCE):
                submit_many(server, range(asked, count))
                asked = count
                running[product.name] = len(shop.wait_for_agents(server, count))
                helpers = shop.helpers(server)
                growth[count][product.name] = (pss_mib(helpers) - idle_mib) / count
                if product.name == OURS:
                    pids = server.tree.pids_named("dispatch-work", "dispatch-guard")
                    family[count] = pss_mib(pids) / count
            threads[product.name] = server.tree.threads() - len(server.tree.pids_of(shop.agent))
    jobs, each, worker = f"{AT_ONCE} background jobs", at_most(5), "PSS of a worker and its guard"
    even = of_predecessor(1)
    return [
        row("m9", f"{jobs}: running", "", running, at_least(AT_ONCE)),
        row("m9", f"{jobs}: threads, agents' not counted", "", threads, even),
        *(
            row("m9", f"{count} background jobs: growth in PSS by each", "MiB", figures, each)
            for count, figures in growth.items()
        ),
        *(
            row("m9", f"{worker}, {count} of them", "MiB", {OURS: mib}, each)
            for count, mib in family.items()
        ),
    ]


def durable_write_s(folder: Path) -> float:
    """The seconds to write a small file durably."""
    begun = time.perf_counter()
    new = folder / "new"
    with open(new, "wb") as file:
        file.write(b"x" * 1000)
        file.flush()
        os.fsync(file.fileno())
    new.rename(folder / "durable")
    directory = os.open(folder, os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)
    return time.perf_counter() - begun


def endings(shop: Workshop) -> list[Row]:
    """End servers that have a call or a background job, in every way."""
    deaths_s, exits_s = Samples(), Samples()
    alive: dict[str, float] = {}
    done: dict[str, float] = {}
    stale: dict[str, float] = {}
    for product in shop.products():
        name = product.name
        for signum in WAYS.values():
            child_s, server_s = _end_call(shop, product, signum)
            deaths_s[name].append(child_s)
            exits_s[name].append(server_s)
        servers_s, jobs = _end_with_jobs(shop, product)
        exits_s[name] += servers_s
        alive[name], done[name] = jobs["alive"], jobs["done"]
        stale[name] = jobs["pending"] + jobs["running"]
    after, all_ways = f"{AFTER_S:.0f} s after EOF, TERM, INT, KILL", at_least(len(WAYS))
    left, up = deaths_s.each(_late), exits_s.each(_late)
    death, server_exit = "call: worst time to the child's death", "worst time to the server's exit"
    return [
        row("m10", f"call: children alive {after}", "", left, at_most(0)),
        row("m10", death, "ms", deaths_s.each(max, 1000), at_most(450)),
        row("m10", server_exit, "ms", exits_s.each(max, 1000), at_most(450)),
        row("m10", f"servers still up (of {2 * len(WAYS)})", "", up, at_most(0)),
        row("m10", f"background: alive {after}", "", alive, all_ways),
        row("m10", "background: done, says a new server", "", done, all_ways),
        row("m10", "background: said to run, by nobody", "", stale, at_most(0)),
    ]


def _late(times_s: Sequence[float]) -> int:
    """How many had not ended when leftovers were counted."""
    return sum(time_s >= AFTER_S for time_s in times_s)


def _end_call(shop: Workshop, product: Product, signum: int | None) -> tuple[float, float]:
    """The seconds until the agent of a call and its server are gone."""
    with ExitStack() as stack:
        server = serving(stack, product, shop.stage(gated=True))
        server.post_call("dispatch", task(0))
        [child] = shop.wait_for_agents(server, 1)
        child_s, server_s = _end(server, signum, [child, server.pid])
        server.tree.kill()  # Otherwise closing it waits for its exit.
        return child_s, server_s


def _end_with_jobs(shop: Workshop, product: Product) -> tuple[list[float], Counter[str]]:
    """The seconds until each server has ended; its jobs still alive; their later statuses."""
    exits_s: list[float] = []
    found = Counter[str]()
    running: list[tuple[Server, Stage, str]] = []
    with ExitStack() as stack:
        for signum in WAYS.values():
            stage = shop.stage(gated=True)
            server = serving(stack, product, stage)
            job_id = submit(server)
            shop.wait_for_agents(server, 1)
            exits_s += _end(server, signum, [server.pid])
            running.append((server, stage, job_id))
        time.sleep(AFTER_S)
        reader = serving(stack, product)
        for server, stage, job_id in running:
            if server.tree.pids_of(shop.agent):
                found["alive"] += 1
                stage.open_gate()
            found[wait_for(reader, job_id, _READ_S)["status"]] += 1
            server.tree.kill()
    return exits_s, found


def _end(server: Server, signum: int | None, pids: Sequence[int]) -> list[float]:
    """End a server; returns the seconds until each process has ended, at most `AFTER_S`."""
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
