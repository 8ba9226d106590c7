"""d1: requests that a client sends while an agent runs, and that nobody answers."""

import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from bench.fanout import task
from bench.harness import HERE, Server
from bench.products import Product
from bench.report import Row, Samples, at_most, row
from bench.steering import Stage, serving
from tests.e2e.network import Place

SENT = 40
_EVERY_S = 0.05
_PATIENCE_S = 5.0
"""How long after the last request the answers may take."""
_LISTENS_S = 2 * SENT * _EVERY_S


class _PatienceOverError(Exception):
    """Nobody will answer what is still open."""


def lost_requests(
    products: Sequence[Product], root: Path, rounds: int, child: str, place: Place = HERE
) -> list[Row]:
    """Send quick requests from the start of a dispatch on, one every 50 ms; the worst round.

    Args:
        products: Whose servers.
        root: A new folder.
        rounds: A new server each.
        child: What their agents are, in words.
        place: The network they need.
    """
    lost: Samples = defaultdict(list)
    for number in range(rounds):
        for product in products:
            stage = Stage(root / f"{product.name}-{number}")
            stage.environ["STANDIN_LISTENS"] = str(_LISTENS_S)
            lost[product.name].append(_lost(product, stage, number, place))
    worst = {name: max(counts) for name, counts in lost.items()}
    name = f"lost of {SENT} requests beside a dispatch ({child})"
    return [row("d1", name, "", worst, at_most(0))]


def _lost(product: Product, stage: Stage, number: int, place: Place) -> int:
    with ExitStack() as stack:
        server = serving(stack, product, stage, place)
        server.post_call("dispatch", task(number))
        sent = []
        for _ in range(SENT):
            time.sleep(_EVERY_S)
            sent.append(server.post_call("list_agents", {}))
        lost = SENT - _answered(server, sent)
        server.tree.kill()  # Or its end would be waited for.
        return lost


def _answered(server: Server, sent: Sequence[int | str]) -> int:
    give_up_at = time.monotonic() + _PATIENCE_S

    def watch() -> None:
        if time.monotonic() > give_up_at:
            raise _PatienceOverError

    answered = 0
    try:
        for _ in server.each_answer(sent, watch):
            answered += 1
    except (_PatienceOverError, EOFError):
        # It does not answer the rest, or it has gone.
        return answered
    return answered
