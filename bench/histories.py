"""m6: listings of long histories, and what else a long history must not slow down."""

import os
import re
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from heapq import nlargest
from pathlib import Path
from statistics import median

from bench.harness import Server, run, running, timed
from bench.products import Product
from bench.report import Row, Samples, Target, at_most, medians, of_floor, of_predecessor, row
from bench.steering import Stage, serving, submit_many, wait_for

SIZES = (1_000, 10_000, 50_000, 100_000)
LISTED = 50
LIVING = 5
"""Jobs that run beside the history."""
START_SIZE = 50_000
COMMAND_SIZE = 10_000
_TASK = "Look through the logs of the last hour and tell what went wrong, and since when. " * 12
_TIME_ORDERED = re.compile("0[0-9a-f]{11}7[0-9a-f]{3}[89ab][0-9a-f]{15}")


class History:
    """The records of one product's jobs directory: one real one, and copies of it."""

    def __init__(self, product: Product, root: Path) -> None:
        """Let the product run one job, to have a record as it writes them."""
        self.product = product
        self.folder = Path(product.environ["AGENT_DISPATCH_JOBS_DIR"])
        with ExitStack() as stack:
            server = serving(stack, product, Stage(root / f"{product.name}-first"))
            arguments = {"agent": "agent0", "task": _TASK}
            self._id: str = server.call("dispatch_async", arguments)["job_id"]
            wait_for(server, self._id)
        self._record = (self.folder / f"{self._id}.json").read_bytes()
        self._size = 1

    def grow_to(self, size: int) -> None:
        """Add older records, until there are so many."""
        for number in range(self._size, size):
            job_id = self._older_id(number)
            content = self._record.replace(self._id.encode(), job_id.encode())
            path = self.folder / f"{job_id}.json"
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            os.write(fd, content)
            os.close(fd)
        self._size = size

    def read_newest(self) -> None:
        """The floor: list the directory, read the files that are newest by name."""
        names = [name for name in os.listdir(self.folder) if name.endswith(".json")]
        for name in nlargest(LISTED, names):
            (self.folder / name).read_bytes()

    def _older_id(self, number: int) -> str:
        if not _TIME_ORDERED.fullmatch(self._id):
            return uuid.uuid4().hex
        # One a second, back from the real one.
        return f"{int(self._id[:12], 16) - 1000 * number:012x}7{uuid.uuid4().hex[13:]}"


def listings(
    histories: Sequence[History], root: Path, rounds: int, sizes: Sequence[int] = SIZES
) -> list[Row]:
    """m6: the newest jobs of longer and longer histories; leaves the longest behind."""
    rows: list[Row] = []
    for size in sizes:
        for history in histories:
            history.grow_to(size)
        rows += _listings_of(histories, size, root, rounds)
        if size == COMMAND_SIZE:
            rows += _commands(histories, root, rounds)
        if size == START_SIZE:
            rows += _starts(histories, root, rounds)
    return rows


def _listings_of(histories: Sequence[History], size: int, root: Path, rounds: int) -> list[Row]:
    samples: dict[str, Samples] = defaultdict(lambda: defaultdict(list))
    floor: list[float] = []
    newest, living = {"limit": LISTED}, {"limit": LISTED, "status": "running"}
    for history in histories:
        product = history.product
        with ExitStack() as stack:
            stage = Stage(root / f"{product.name}-{size}", gated=True)
            server = serving(stack, product, stage)
            ids = submit_many(server, LIVING)
            samples["first"][product.name].append(timed(_list, server, newest))
            for _ in range(rounds):
                if history is histories[0]:
                    floor.append(timed(history.read_newest))
                samples["newest"][product.name].append(timed(_list, server, newest))
                samples["running"][product.name].append(timed(server.call, "dispatch_jobs", living))
                samples["behind"][product.name].append(_quick_tool_behind_a_listing(server))
            stage.open_gate()
            for job_id in ids:
                wait_for(server, job_id)
    of_newest: dict[int, Target] = {
        1_000: of_predecessor(0.1),
        10_000: of_predecessor(0.04),
        50_000: of_floor(3),
        100_000: at_most(200),
    }
    floor_ms = median(floor) * 1000

    def figure(name: str, sampled: str, target: Target) -> Row:
        values = medians(samples[sampled], 1000)
        if sampled not in ("newest", "first"):
            return row("m6", f"{name}, {size} beside", "ms", values, target)
        floor_is = f"bare reading of {LISTED}"
        name = f"{name} of {size}"
        return row("m6", name, "ms", values, target, floor=floor_ms, floor_is=floor_is)

    return [
        figure(f"newest {LISTED}", "newest", of_newest[size]),
        figure("first call of a server, newest", "first", of_predecessor(0.04)),
        figure("list_agents right behind it", "behind", at_most(40)),
        figure(f"{LIVING} running jobs", "running", at_most(10)),
    ]


def _list(server: Server, arguments: object) -> None:
    found = server.call("dispatch_jobs", arguments)
    if len(found) != LISTED:
        raise RuntimeError(f"{len(found)} jobs instead of {LISTED}")


def _quick_tool_behind_a_listing(server: Server) -> float:
    listing = server.post_call("dispatch_jobs", {"limit": LISTED})
    begun = time.perf_counter()
    quick = server.post_call("list_agents", {})
    took_s = 0.0
    for request, _ in server.each_answer([listing, quick]):
        if request == quick:
            took_s = time.perf_counter() - begun
    return took_s


def _starts(histories: Sequence[History], root: Path, rounds: int) -> list[Row]:
    long, empty = _with_and_without(histories, root / "starts", rounds, _start)
    return [_over_none(f"start of a server, {START_SIZE} jobs", long, empty, of_floor(1.15))]


def _commands(histories: Sequence[History], root: Path, rounds: int) -> list[Row]:
    long, empty = _with_and_without(histories, root / "commands", rounds, _command)
    return [
        _over_none(f"command `jobs`, {COMMAND_SIZE} jobs", long, empty, of_floor(1.2)),
        row("m7", "jobs", "ms", medians(empty, 1000), of_predecessor(0.85)),
    ]


def _with_and_without(
    histories: Sequence[History],
    root: Path,
    rounds: int,
    action: Callable[[Product, Mapping[str, str]], float],
) -> tuple[Samples, Samples]:
    """The seconds of something beside the history, and in an empty jobs directory."""
    long: Samples = defaultdict(list)
    empty: Samples = defaultdict(list)
    for _ in range(rounds):
        for history in histories:
            product = history.product
            none = {**product.environ, "AGENT_DISPATCH_JOBS_DIR": str(root / product.name)}
            empty[product.name].append(action(product, none))
            long[product.name].append(action(product, product.environ))
    return long, empty


def _start(product: Product, environ: Mapping[str, str]) -> float:
    begun = time.perf_counter()
    server = Server(product.command("serve"), environ)
    with running(server):
        server.initialize()
        return time.perf_counter() - begun


def _command(product: Product, environ: Mapping[str, str]) -> float:
    return run(product.command("jobs"), environ).wall_s


def _over_none(name: str, long: Samples, empty: Samples, target: Target) -> Row:
    floor_ms = median(empty["agent-dispatch"]) * 1000
    figures = medians(long, 1000)
    return row("m6", name, "ms", figures, target, floor=floor_ms, floor_is="no jobs")
