"""A server from start to end (m2), quick tools (m3), commands (m7), lost requests (d1)."""

import json
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from bench.processes import pss_mib, rss_mib
from bench.speed.mcp_client import Server, run_s, timed
from bench.speed.rows import Row, Samples, Target, at_most, of_predecessor, row
from bench.speed.workshop import (
    AGENTS,
    Product,
    Stage,
    Workshop,
    dispatch,
    serving,
    submit,
    task,
    wait_for,
    warm_servers,
)

PIPELINED = 200
IDLE_S = 2.0
SETTLED_S = 30.0
"""The time that helpers may stay after the last run."""
STREAMS = 5
SENT = 40
_ECHO = [sys.executable, str(Path(__file__).with_name("echo_server.py"))]
_ALONE_S = 1.5
_PIPELINED_BESIDE_STREAMS = 50
_STREAMS_S = 8.0
"""How long the streaming agents work: longer than the measurement takes."""
_EVERY_S = 0.05
_PATIENCE_S = 5.0


_LIFE: tuple[tuple[str, str, str, tuple[Target, ...]], ...] = (
    ("m1", "first dispatch", "ms", (of_predecessor(1),)),
    ("m2", "start to tools, initialize", "ms", (of_predecessor(0.35),)),
    ("m2", "start to tools, discover", "ms", (of_predecessor(0.33),)),
    ("m2", "start to tools: CPU", "ms", (of_predecessor(0.35),)),
    ("m2", "start to the first list_agents", "ms", (at_most(750),)),
    ("m2", "unused: processes", "", ()),
    ("m2", "unused: RSS", "MiB", ()),
    ("m2", "unused: PSS", "MiB", ()),
    ("m2", "unused: threads", "", ()),
    ("m2", "unused: wake-ups", "1/s", (at_most(0),)),
    ("m2", "RSS idle", "MiB", (of_predecessor(0.65),)),
    ("m2", "PSS idle", "MiB", (of_predecessor(0.65),)),
    ("m2", "threads idle", "", (at_most(2),)),
    ("m2", "wake-ups idle", "1/s", (at_most(0),)),
    ("m2", "exit after EOF", "ms", (at_most(100),)),
    ("m2", "exit after EOF while it starts", "ms", (at_most(400),)),
    ("m2", "size of tools/list", "kB", (of_predecessor(1), at_most(24.8))),
)


def server_life(shop: Workshop, rounds: int) -> list[Row]:
    """A server from its start to its end."""
    samples: dict[str, Samples] = defaultdict(Samples)
    bare: list[float] = []
    products = shop.products()
    for _ in range(rounds):
        with Server(_ECHO, products[0].environ) as echo:
            echo.initialize()
            bare.append(echo.age_s() * 1000)
        for product in products:
            for figure, value in _one_life(product).items():
                samples[figure][product.name].append(value)
    rows = []
    for group, name, unit, targets in _LIFE:
        floor = (median(bare), "echo server") if name.startswith("start to tools,") else None
        rows.append(row(group, name, unit, samples[name].medians(), *targets, floor=floor))
    return rows


def _one_life(product: Product) -> dict[str, float]:
    figures: dict[str, float] = {}
    with product.start() as server:
        server.discover()
        figures["start to tools, discover"] = server.age_s() * 1000
        server.call("list_agents", {})
        figures["start to the first list_agents"] = server.age_s() * 1000
    with product.start() as server:
        pass
    figures["exit after EOF while it starts"] = server.exit_s * 1000
    with product.start() as server:
        tools = server.initialize()
        figures["start to tools, initialize"] = server.age_s() * 1000
        figures["start to tools: CPU"] = server.cpu_s() * 1000
        figures["size of tools/list"] = len(json.dumps(tools)) / 1000
        unused = _idle(server)
        figures |= {f"unused: {name}": value for name, value in unused.items()}
        figures["first dispatch"] = timed(dispatch, server, 0) * 1000
        used = _idle(server)
        figures |= {f"{name} idle": value for name, value in used.items()}
    figures["exit after EOF"] = server.exit_s * 1000
    return figures


def _idle(server: Server) -> dict[str, float]:
    time.sleep(IDLE_S)
    wake_ups = server.tree.wake_ups()
    time.sleep(IDLE_S)
    wake_ups = server.tree.wake_ups() - wake_ups
    pids = server.tree.pids()
    return {
        "wake-ups": wake_ups / IDLE_S,
        "processes": len(pids),
        "RSS": rss_mib(pids),
        "PSS": pss_mib(pids),
        "threads": server.tree.threads(),
    }


def idle_after_use(shop: Workshop) -> list[Row]:
    """The processes that remain a while after one dispatch and one background job."""
    processes: dict[str, float] = {}
    largest: dict[str, float] = {}
    with ExitStack() as stack:
        servers = warm_servers(stack, shop.products())
        for server in servers.values():
            wait_for(server, submit(server))
        time.sleep(SETTLED_S)
        for name, server in servers.items():
            helpers = [pid for pid in server.tree.pids() if pid != server.pid]
            processes[name] = 1 + len(helpers)
            largest[name] = max((pss_mib([pid]) for pid in helpers), default=0)
    after = f"{SETTLED_S:.0f} s after use"
    return [
        row("m2", f"{after}: processes", "", processes, at_most(3)),
        row("m2", f"{after}: PSS of the largest helper", "MiB", largest, at_most(8)),
    ]


def list_agents(shop: Workshop, rounds: int) -> list[Row]:
    """The tool that is called most, one call after another and pipelined."""
    walls, rates = Samples(), Samples()
    floor: list[float] = []
    request = {"name": "list_agents", "arguments": {}}
    products = shop.products()
    with ExitStack() as stack:
        servers = warm_servers(stack, products)
        echo = stack.enter_context(Server(_ECHO, products[0].environ))
        echo.initialize()
        for _ in range(rounds):
            floor.append(timed(echo.request, "tools/call", request))
            for name, server in servers.items():
                walls[name].append(timed(server.call, "list_agents", {}))
        for _ in range(3):
            for name, server in servers.items():
                rates[name].append(PIPELINED / _pipelined_s(server, PIPELINED))
    name, echo_server = f"list_agents, {AGENTS} agents", (median(floor) * 1000, "echo server")
    return [
        row("m3", name, "ms", walls.medians(1000), of_predecessor(0.1), floor=echo_server),
        row("m3", "list_agents pipelined", "1/s", rates.medians(), of_predecessor(10, ">=")),
    ]


def _pipelined_s(server: Server, count: int) -> float:
    return timed(
        lambda: server.answers([server.post_call("list_agents", {}) for _ in range(count)])
    )


def busy_server(shop: Workshop, rounds: int) -> list[Row]:
    """The same while dispatches report progress; a new server in each round."""
    walls, worst, rates = Samples(), Samples(), Samples()
    products = shop.products(limit=STREAMS)
    for _ in range(rounds):
        for product in products:
            stage = shop.stage(seconds=_STREAMS_S, lines=round(_STREAMS_S * 100))
            with ExitStack() as stack:
                server = serving(stack, product, stage)
                for number in range(STREAMS):
                    server.post_call(product.watched_tool, task(number), watched=True)
                shop.wait_for_agents(server, STREAMS)
                server.call("list_agents", {})
                until_s = time.monotonic() + _ALONE_S
                took_s = []
                while time.monotonic() < until_s:
                    took_s.append(timed(server.call, "list_agents", {}))
                walls[product.name] += took_s
                worst[product.name].append(max(took_s))
                count = _PIPELINED_BESIDE_STREAMS
                rates[product.name].append(count / _pipelined_s(server, count))
                if len(server.tree.pids_of(shop.agent)) < STREAMS:
                    raise RuntimeError("the agents ended before everything was measured")
                server.tree.kill()  # Otherwise its exit waits for the agents.
    meanwhile = f"while {STREAMS} dispatches report"
    figures, slowest = walls.medians(1000), worst.medians(1000)
    name, rate = f"list_agents pipelined {meanwhile}", of_predecessor(8, ">=")
    return [
        row("m3", f"list_agents {meanwhile}", "ms", figures, of_predecessor(0.15)),
        row("m3", "the slowest of them", "ms", slowest, of_predecessor(0.4)),
        row("m3", name, "1/s", rates.medians(), rate),
    ]


def commands(shop: Workshop, rounds: int) -> list[Row]:
    """Each command of the CLI, compared with an interpreter that does nothing."""
    cases: Mapping[str, tuple[list[str], float]] = {
        "--version": (["--version"], 0.4),
        "list": (["list"], 0.85),
        "describe": (["describe", "agent0"], 0.85),
        "test (instant child)": (["test", "agent0", "a task"], 1.2),
    }
    rows = []
    products = shop.products()
    for name, (arguments, factor) in cases.items():
        walls = Samples()
        bare: list[float] = []
        for _ in range(rounds):
            bare.append(run_s([sys.executable, "-c", "pass"], products[0].environ) * 1000)
            for product in products:
                took_s = run_s(product.command(*arguments), product.environ)
                walls[product.name].append(took_s * 1000)
        floor = (median(bare), "python -c pass")
        rows.append(row("m7", name, "ms", walls.medians(), of_predecessor(factor), floor=floor))
    return rows


class _PatienceOverError(Exception):
    """The rest will not be answered."""


def lost_requests(shop: Workshop, rounds: int, child: str) -> list[Row]:
    """Send a quick request every 50 ms from the start of a dispatch; count the unanswered ones."""
    lost = Samples()
    products = shop.products()
    for number in range(rounds):
        for product in products:
            stage = shop.stage(listens_s=2 * SENT * _EVERY_S)
            lost[product.name].append(_lost(product, stage, number))
    name = f"lost of {SENT} requests beside a dispatch ({child})"
    return [row("d1", name, "", lost.each(max), at_most(0))]


def _lost(product: Product, stage: Stage, number: int) -> int:
    with ExitStack() as stack:
        server = serving(stack, product, stage)
        server.post_call("dispatch", task(number))
        sent = []
        for _ in range(SENT):
            time.sleep(_EVERY_S)
            sent.append(server.post_call("list_agents", {}))
        give_up_at = time.monotonic() + _PATIENCE_S

        def watch() -> None:
            if time.monotonic() > give_up_at:
                raise _PatienceOverError

        answered = 0
        try:
            for _ in server.each_answer(sent, watch):
                answered += 1
        except (_PatienceOverError, EOFError):
            pass  # The server has ended or does not answer the rest; these requests are lost.
        server.tree.kill()  # Otherwise its exit waits for the agent.
        return SENT - answered
