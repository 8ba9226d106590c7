"""m5 and m9: background jobs, one after the other, a hundred in a row, and fifty at once."""

import os
import signal
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from bench.harness import Server
from bench.processes import memory_mib
from bench.products import Product
from bench.report import (
    Row,
    Samples,
    at_least,
    at_most,
    medians,
    of_predecessor,
    percentile_95,
    percentiles_95,
    row,
)
from bench.steering import Stage, serving, submit, submit_many, wait_for, wait_for_standins

MANY = 100
AT_ONCE = 50
_WARM_UP = 3
_UNDER_WAY_S = 0.05
"""How long a `dispatch_wait` may take to be waiting."""


def submissions(products: Sequence[Product], root: Path, rounds: int) -> list[Row]:
    """m5: a background job from the call to its answer, and to its agent running."""
    answered: Samples = defaultdict(list)
    started: Samples = defaultdict(list)
    durable: list[float] = []
    with ExitStack() as stack:
        stages = {product.name: Stage(root / product.name) for product in products}
        servers = {
            product.name: serving(stack, product, stages[product.name]) for product in products
        }
        for number in range(_WARM_UP + rounds):
            durable.append(durable_write_s(root))
            for name, server in servers.items():
                begun = time.monotonic()
                job_id = submit(server, number)
                answered_s = time.monotonic() - begun
                _must_be_done(wait_for(server, job_id))
                if number >= _WARM_UP:
                    answered[name].append(answered_s)
                    started[name].append(stages[name].stamp("start") - begun)
    floor_ms = median(durable) * 1000
    floor_is = "durable write"
    name = "dispatch_async to its answer"
    return [
        row(
            "m5", name, "ms", medians(answered, 1000), at_most(8), floor=floor_ms, floor_is=floor_is
        ),
        row("m5", f"{name}, p95", "ms", percentiles_95(answered, 1000), of_predecessor(0.6)),
        row("m5", "dispatch_async to its agent running", "ms", medians(started, 1000), at_most(15)),
        row(
            "m5",
            "dispatch_async to its agent running, p95",
            "ms",
            percentiles_95(started, 1000),
            of_predecessor(0.6),
        ),
    ]


def wake_ups(products: Sequence[Product], root: Path, rounds: int) -> list[Row]:
    """m5: how long after the agent's end `dispatch_wait` answers; by the agent's own clock."""
    woke: Samples = defaultdict(list)
    with ExitStack() as stack:
        stages = {p.name: Stage(root / p.name, gated=True) for p in products}
        servers = {p.name: serving(stack, p, stages[p.name]) for p in products}
        for number in range(_WARM_UP + rounds):
            for name, server in servers.items():
                arguments = {"job_id": submit(server, number), "timeout_seconds": 60}
                sent = server.post_call("dispatch_wait", arguments)
                time.sleep(_UNDER_WAY_S)
                stages[name].open_gate()
                server.answers([sent])
                answered = time.monotonic()
                if number >= _WARM_UP:
                    woke[name].append(answered - stages[name].stamp("end"))
    name = "dispatch_wait after the agent's end"
    return [
        row("m5", name, "ms", medians(woke, 1000), at_most(5)),
        row("m5", f"{name}, p95", "ms", percentiles_95(woke, 1000), at_most(25)),
    ]


def sudden_ends(product: Product, root: Path, standin: str, rounds: int) -> list[Row]:
    """m5: the same when the process that runs the job is killed; only ours has one."""
    woke: list[float] = []
    with ExitStack() as stack:
        server = serving(stack, product, Stage(root / product.name, gated=True))
        for number in range(rounds):
            job_id = submit(server, number)
            wait_for_standins(server, standin, 1)
            sent = server.post_call("dispatch_wait", {"job_id": job_id, "timeout_seconds": 60})
            time.sleep(_UNDER_WAY_S)
            [worker] = [
                pid for pid in owners(server, product, job_id) if _name(pid) == "dispatch-work"
            ]
            begun = time.monotonic()
            os.kill(worker, signal.SIGKILL)
            server.answers([sent])
            woke.append(time.monotonic() - begun)
    figures = {product.name: percentile_95(woke) * 1000}
    return [row("m5", "dispatch_wait after kill -9 of the worker, p95", "ms", figures, at_most(50))]


def a_hundred(products: Sequence[Product], root: Path, rounds: int) -> list[Row]:
    """m5: many instant jobs, submitted in a row and all waited for."""
    walls: Samples = defaultdict(list)
    cpu: Samples = defaultdict(list)
    done: Samples = defaultdict(list)
    with ExitStack() as stack:
        servers = {p.name: serving(stack, p, Stage(root / p.name)) for p in products}
        for server in servers.values():
            wait_for(server, submit(server))
        for _ in range(rounds):
            for name, server in servers.items():
                begun, begun_cpu = time.monotonic(), server.cpu_s()
                jobs = [wait_for(server, job_id) for job_id in submit_many(server, MANY)]
                walls[name].append(time.monotonic() - begun)
                cpu[name].append((server.cpu_s() - begun_cpu) / MANY)
                done[name].append(sum(job["status"] == "done" for job in jobs))
    least = {name: min(counts) for name, counts in done.items()}
    return [
        row("m5", f"{MANY} instant jobs: answered", "", least, at_least(MANY)),
        row("m5", f"{MANY} instant jobs, wall", "s", medians(walls), of_predecessor(0.6)),
        row(
            "m5",
            f"{MANY} instant jobs: CPU of each, with the child",
            "ms",
            medians(cpu, 1000),
            of_predecessor(0.6),
        ),
    ]


def at_once(products: Sequence[Product], root: Path, standin: str) -> list[Row]:
    """m9: what jobs cost while they run; the products' limit must allow for 50."""
    rows: list[Row] = []
    family: dict[int, float] = {}
    running: dict[str, float] = {}
    growth: dict[int, dict[str, float]] = defaultdict(dict)
    threads: dict[str, float] = {}
    for product in products:
        with ExitStack() as stack:
            server = serving(stack, product, Stage(root / product.name, gated=True))
            idle_mib = _pss_mib(server, standin)
            ids: list[str] = []
            for count in (1, 20, AT_ONCE):
                ids += submit_many(server, count - len(ids))
                running[product.name] = len(wait_for_standins(server, standin, count))
                grown_mib = (_pss_mib(server, standin) - idle_mib) / count
                growth[count][product.name] = grown_mib
                if product is products[0]:
                    family[count] = memory_mib(owners(server, product))[1] / count
            threads[product.name] = server.tree.threads() - len(server.tree.pids_of(standin))
    ours = products[0].name
    for count, mib in family.items():
        name = f"PSS of a worker and its guard, {count} of them"
        rows.append(row("m9", name, "MiB", {ours: mib}, at_most(5)))
    return [
        row("m9", f"{AT_ONCE} background jobs: running", "", running, at_least(AT_ONCE)),
        row(
            "m9",
            f"{AT_ONCE} background jobs: threads, agents' not counted",
            "",
            threads,
            of_predecessor(1),
        ),
        *(
            row("m9", f"{count} background jobs: growth in PSS by each", "MiB", figures, at_most(5))
            for count, figures in growth.items()
        ),
        *rows,
    ]


def owners(server: Server, product: Product, job_id: str = "") -> list[int]:
    """The worker of a job of ours, or of any, and the guard of its run: who has its lock open."""
    lock = f"{product.environ['AGENT_DISPATCH_JOBS_DIR']}/live/{job_id}"
    return [pid for pid in server.tree.pids() if any(f.startswith(lock) for f in _open_files(pid))]


def durable_write_s(folder: Path) -> float:
    """The seconds that it takes to put a small file in place and be sure of it."""
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


def _pss_mib(server: Server, standin: str) -> float:
    agents = set(server.tree.pids_of(standin))
    return memory_mib(pid for pid in server.tree.pids() if pid not in agents)[1]


def _open_files(pid: int) -> set[str]:
    try:
        return {os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir()}
    except OSError:  # It has gone, or one of its descriptors.
        return set()


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def _must_be_done(job: dict[str, object]) -> None:
    if job["status"] != "done":
        raise RuntimeError(f"the job failed: {job}")
