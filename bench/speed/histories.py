"""Listings of long histories, and the operations that a long history must not slow (m6, m7)."""

import os
import re
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from heapq import nlargest
from pathlib import Path
from statistics import median

from bench.speed.mcp_client import Server, run_s, timed
from bench.speed.rows import OURS, Row, Samples, Target, at_most, of_floor, of_predecessor, row
from bench.speed.workshop import Product, Workshop, serving, submit_many, wait_for

LISTED = 50
RUNNING = 5
"""Jobs that run beside the history."""
START_SIZE = 50_000
COMMAND_SIZE = 10_000
_OF_NEWEST: Mapping[int, Target] = {
    1_000: of_predecessor(0.1),
    10_000: of_predecessor(0.04),
    50_000: of_floor(3),
    100_000: at_most(200),
}
_TASK = "Look through the logs of the last hour and tell what went wrong, and since when. " * 12
_TIME_ORDERED = re.compile("0[0-9a-f]{11}7[0-9a-f]{3}[89ab][0-9a-f]{15}")


class History:
    """The records of one product: one real record and copies of it."""

    def __init__(self, shop: Workshop, product: Product) -> None:
        """Let the product run one job, for a record in its own format."""
        self.product = product
        self.folder = Path(product.environ["AGENT_DISPATCH_JOBS_DIR"])
        with ExitStack() as stack:
            server = serving(stack, product, shop.stage())
            arguments = {"agent": "agent0", "task": _TASK}
            self._id: str = server.call("dispatch_async", arguments)["job_id"]
            wait_for(server, self._id)
        self._record = (self.folder / f"{self._id}.json").read_bytes()
        self._size = 1

    def grow_to(self, size: int) -> None:
        """Add older records until there are `size`."""
        for number in range(self._size, size):
            job_id = self._older_id(number)
            content = self._record.replace(self._id.encode(), job_id.encode())
            path = self.folder / f"{job_id}.json"
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            os.write(fd, content)
            os.close(fd)
        self._size = size

    def read_newest(self) -> None:
        """The floor: list the directory and read the files with the newest names."""
        names = [name for name in os.listdir(self.folder) if name.endswith(".json")]
        for name in nlargest(LISTED, names):
            (self.folder / name).read_bytes()

    def _older_id(self, number: int) -> str:
        if not _TIME_ORDERED.fullmatch(self._id):
            return uuid.uuid4().hex
        # One job a second, back from the real one.
        return f"{int(self._id[:12], 16) - 1000 * number:012x}7{uuid.uuid4().hex[13:]}"


def listings(shop: Workshop, rounds: int, sizes: Sequence[int]) -> Iterator[Row]:
    """The newest jobs of longer and longer histories."""
    histories = [History(shop, product) for product in shop.products()]
    for size in sizes:
        for history in histories:
            history.grow_to(size)
        yield from _listings_of(shop, histories, size, rounds)
        if size == COMMAND_SIZE:
            long, empty = _with_and_without(shop, histories, rounds, _command_s)
            yield _beside_no_jobs(f"command `jobs`, {size} jobs", long, empty, of_floor(1.2))
            yield row("m7", "jobs", "ms", empty.medians(1000), of_predecessor(0.85))
        if size == START_SIZE:
            long, empty = _with_and_without(shop, histories, rounds, _start_s)
            yield _beside_no_jobs(f"start of a server, {size} jobs", long, empty, of_floor(1.15))


def _listings_of(shop: Workshop, histories: Sequence[History], size: int, rounds: int) -> list[Row]:
    samples: dict[str, Samples] = defaultdict(Samples)
    bare: list[float] = []
    newest, running = {"limit": LISTED}, {"limit": LISTED, "status": "running"}
    for history in histories:
        name = history.product.name
        with ExitStack() as stack:
            stage = shop.stage(gated=True)
            server = serving(stack, history.product, stage)
            ids = submit_many(server, range(RUNNING))
            samples["first"][name].append(timed(_list, server, newest))
            for _ in range(rounds):
                if history is histories[0]:
                    bare.append(timed(history.read_newest))
                samples["newest"][name].append(timed(_list, server, newest))
                samples["running"][name].append(timed(server.call, "dispatch_jobs", running))
                samples["behind"][name].append(_quick_tool_behind_a_listing_s(server))
            # Some agents may start only now.
            stage.remove_gate()
            for job_id in ids:
                wait_for(server, job_id)
    ms = {figure: sampled.medians(1000) for figure, sampled in samples.items()}
    floor = (median(bare) * 1000, f"bare reading of {LISTED}")
    first, behind = "first call of a server, newest", f"list_agents right behind it, {size} beside"
    soon = of_predecessor(0.04)
    return [
        row("m6", f"newest {LISTED} of {size}", "ms", ms["newest"], _OF_NEWEST[size], floor=floor),
        row("m6", f"{first} of {size}", "ms", ms["first"], soon, floor=floor),
        row("m6", behind, "ms", ms["behind"], at_most(40)),
        row("m6", f"{RUNNING} running jobs, {size} beside", "ms", ms["running"], at_most(10)),
    ]


def _list(server: Server, arguments: object) -> None:
    found = server.call("dispatch_jobs", arguments)
    if len(found) != LISTED:
        raise RuntimeError(f"{len(found)} jobs instead of {LISTED}")


def _quick_tool_behind_a_listing_s(server: Server) -> float:
    listing = server.post_call("dispatch_jobs", {"limit": LISTED})
    begun = time.perf_counter()
    quick = server.post_call("list_agents", {})
    took_s = 0.0
    for request, _ in server.each_answer([listing, quick]):
        if request == quick:
            took_s = time.perf_counter() - begun
    return took_s


def _with_and_without(
    shop: Workshop,
    histories: Sequence[History],
    rounds: int,
    action: Callable[[Product, Mapping[str, str]], float],
) -> tuple[Samples, Samples]:
    """The seconds of an action beside the history, and with an empty jobs directory."""
    long, empty = Samples(), Samples()
    folder = shop.folder()
    for _ in range(rounds):
        for product in (history.product for history in histories):
            none = {**product.environ, "AGENT_DISPATCH_JOBS_DIR": str(folder / product.name)}
            empty[product.name].append(action(product, none))
            long[product.name].append(action(product, product.environ))
    return long, empty


def _start_s(product: Product, environ: Mapping[str, str]) -> float:
    with product.start(environ) as server:
        server.initialize()
        return server.age_s()


def _command_s(product: Product, environ: Mapping[str, str]) -> float:
    return run_s(product.command("jobs"), environ)


def _beside_no_jobs(name: str, long: Samples, empty: Samples, target: Target) -> Row:
    floor = (median(empty[OURS]) * 1000, "no jobs")
    return row("m6", name, "ms", long.medians(1000), target, floor=floor)
