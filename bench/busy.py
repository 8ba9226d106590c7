"""m3: the tool that is called most, while dispatches report what their agents do."""

import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from bench.fanout import task
from bench.harness import Server, timed
from bench.products import Product
from bench.report import Row, Samples, Target, medians, of_predecessor, row
from bench.steering import Stage, serving, wait_for_standins

STREAMS = 5
_LINES_PER_S = 100
_ALONE_S = 1.5
"""How long one call follows the other."""
_PIPELINED = 50
_WORK_S = 8.0
"""How long the agents work: longer than anybody measures."""


def busy_tools(products: Sequence[Product], root: Path, standin: str, rounds: int) -> list[Row]:
    """Ask one after another and pipelined, of a new server each round."""
    walls: Samples = defaultdict(list)
    worst: Samples = defaultdict(list)
    rates: Samples = defaultdict(list)
    for number in range(rounds):
        for product in products:
            stage = Stage(
                root / f"{product.name}-{number}",
                seconds=_WORK_S,
                lines=round(_WORK_S * _LINES_PER_S),
            )
            with ExitStack() as stack:
                server = _with_streams(stack, product, stage, standin)
                took_s = _calls_s(server)
                walls[product.name] += took_s
                worst[product.name].append(max(took_s))
                rates[product.name].append(_PIPELINED / timed(_pipelined, server))
                _must_still_work(server, standin)
                server.tree.kill()  # Or its end would be waited for.
    meanwhile = f"while {STREAMS} dispatches report"
    of_rate = Target(factor=8, of="predecessor", sign=">=")
    return [
        row("m3", f"list_agents {meanwhile}", "ms", medians(walls, 1000), of_predecessor(0.15)),
        row("m3", "the slowest of them", "ms", medians(worst, 1000), of_predecessor(0.4)),
        row("m3", f"list_agents pipelined {meanwhile}", "1/s", medians(rates), of_rate),
    ]


def _with_streams(stack: ExitStack, product: Product, stage: Stage, standin: str) -> Server:
    server = serving(stack, product, stage)
    for number in range(STREAMS):
        server.post_call(product.watched_tool, task(number), watched=True)
    wait_for_standins(server, standin, STREAMS)
    server.call("list_agents", {})
    return server


def _calls_s(server: Server) -> list[float]:
    until_s = time.monotonic() + _ALONE_S
    took_s = []
    while time.monotonic() < until_s:
        took_s.append(timed(server.call, "list_agents", {}))
    return took_s


def _pipelined(server: Server) -> None:
    server.answers([server.post_call("list_agents", {}) for _ in range(_PIPELINED)])


def _must_still_work(server: Server, standin: str) -> None:
    if len(server.tree.pids_of(standin)) < STREAMS:
        raise RuntimeError("the agents ended before everything was measured")
