"""m9: an answer that is far larger than what anybody reads."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.fanout import task
from bench.harness import Server
from bench.processes import forget_peaks, memory_mib, peak_mib
from bench.products import Product
from bench.report import Row, at_most, of_predecessor, row
from bench.steering import Stage, serving

_MIB = 1 << 20
_LATER_S = 1.0
_TAIL = 100


def large_answer(products: Sequence[Product], root: Path, size_mib: int) -> list[Row]:
    """One dispatch with such an answer: what it takes, and what of it goes over the wire."""
    lives = {p.name: _one(p, root / p.name, size_mib * _MIB) for p in products}

    def figure(name: str, unit: str, *targets: Any) -> Row:
        figures = {product: figures[name] for product, figures in lives.items()}
        return row("m9", f"answer of {size_mib} MiB: {name}", unit, figures, *targets)

    return [
        figure("wall", "s", of_predecessor(0.6)),
        figure("on the wire", "MiB", at_most(0.2)),
        figure("peak RSS over idle", "MiB", at_most(3 * size_mib)),
        figure("PSS over idle 1 s later", "MiB", of_predecessor(0.1)),
    ]


def _one(product: Product, folder: Path, size: int) -> dict[str, float]:
    with ExitStack() as stack:
        server = serving(stack, product, Stage(folder, answer_bytes=size))
        server.call("list_agents", {})
        # A guard that is forked later shares its memory with these, and never sees the answer.
        pids = server.tree.pids()
        forget_peaks(pids)
        idle_rss_mib = {pid: memory_mib([pid])[0] for pid in pids}
        idle_pss_mib = memory_mib(pids)[1]
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
        figures["PSS over idle 1 s later"] = memory_mib(pids)[1] - idle_pss_mib
        _must_be_whole(server, answer, size)
    return figures


def _must_be_whole(server: Server, answer: Any, size: int) -> None:
    """Fail unless all of the answer is there, inline or to be fetched."""
    there, tail = len(answer["result"]), answer["result"][-_TAIL:]
    if answer.get("truncated"):
        where = {"ref": answer["job_id"], "offset": size - _TAIL}
        there, tail = answer["full_size"], server.call("fetch_result", where)["result"]
    if there != size or tail != "." * _TAIL:
        raise RuntimeError(f"{there} of {size} characters are there, and end with {tail!r}")
