"""The measurements: each drives all products in turn within one round, and reports medians.

Interleaving is what lets the ratios hold on a machine that others use too.
"""

import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from bench.harness import HERE, Server, children_cpu_s, run, running, timed
from bench.products import Product
from bench.report import (
    Row,
    Samples,
    Target,
    at_most,
    medians,
    of_predecessor,
    row,
)
from tests.e2e.network import Place

STREAM_LINES = 400
PIPELINED = 200
IDLE_S = 2.0
_ECHO = [sys.executable, str(Path(__file__).with_name("echo_server.py"))]


def dispatch_overhead(products: Sequence[Product], rounds: int) -> list[Row]:
    """m1: what the dispatch of an instant child takes over the child alone.

    Ours is on disk, durably, before the child starts and when it has ended; the predecessor keeps
    nothing of it. So even is the target.
    """
    bare: list[float] = []
    walls: Samples = defaultdict(list)
    with ExitStack() as stack:
        servers = warm_servers(stack, products)
        begun = {name: server.cpu_s() for name, server in servers.items()}
        bare_cpu_s = children_cpu_s()
        for number in range(rounds):
            bare.append(timed(_bare_child, products[0].environ))
            for name, server in servers.items():
                walls[name].append(timed(dispatch, server, number))
        bare_cpu_s = children_cpu_s() - bare_cpu_s
        cpu_s = {name: server.cpu_s() - begun[name] for name, server in servers.items()}
    wall = medians(walls, 1000)
    floor = median(bare) * 1000
    return [
        row(
            "m1",
            "dispatch of an instant child, wall",
            "ms",
            wall,
            of_predecessor(1),
            floor=floor,
            floor_is="bare child",
        ),
        row(
            "m1",
            "instant child: what is added, wall",
            "ms",
            {name: value - floor for name, value in wall.items()},
            of_predecessor(1),
            floor=floor,
            floor_is="bare child",
        ),
        row(
            "m1",
            "instant child: what is added, CPU with helpers",
            "ms",
            {name: (value - bare_cpu_s) / rounds * 1000 for name, value in cpu_s.items()},
            of_predecessor(1),
        ),
    ]


def watched_dispatch(products: Sequence[Product], rounds: int) -> list[Row]:
    """m1: a dispatch whose child prints many messages, with progress reported meanwhile."""
    walls: Samples = defaultdict(list)
    with ExitStack() as stack:
        servers = warm_servers(stack, products, {"STANDIN_LINES": str(STREAM_LINES)})
        begun = {name: server.cpu_s() for name, server in servers.items()}
        for number in range(rounds):
            for product in products:
                server = servers[product.name]
                task = {"agent": "agent0", "task": f"task {number}"}
                took = timed(server.call, product.watched_tool, task, watched=True)
                walls[product.name].append(took)
        cpu_s = {name: server.cpu_s() - begun[name] for name, server in servers.items()}
    name = f"watched dispatch of {STREAM_LINES} messages"
    cpu_ms = {name: value / rounds * 1000 for name, value in cpu_s.items()}
    return [
        row("m1", f"{name}, wall", "ms", medians(walls, 1000), of_predecessor(0.15)),
        row("m1", f"{name}, CPU with the child", "ms", cpu_ms, of_predecessor(0.4)),
    ]


def server_life(products: Sequence[Product], rounds: int) -> list[Row]:
    """m2, and m1's first dispatch: a server from its start to its end."""
    samples: dict[str, Samples] = defaultdict(lambda: defaultdict(list))
    floor: list[float] = []
    for _ in range(rounds):
        floor.append(_started(_ECHO, products[0].environ, Server.initialize)[1])
        for product in products:
            for figure, value in _one_life(product).items():
                samples[figure][product.name].append(value)
    echo_ms = median(floor) * 1000

    def of_life(name: str, unit: str, *targets: Target, scale: float = 1, group: str = "m2") -> Row:
        figures = medians(samples[name], scale)
        if not name.startswith("start to tools,"):
            return row(group, name, unit, figures, *targets)
        return row(group, name, unit, figures, *targets, floor=echo_ms, floor_is="echo server")

    return [
        of_life("first dispatch", "ms", of_predecessor(1), scale=1000, group="m1"),
        of_life("start to tools, initialize", "ms", of_predecessor(0.35), scale=1000),
        of_life("start to tools, discover", "ms", of_predecessor(0.33), scale=1000),
        of_life("start to tools: CPU", "ms", of_predecessor(0.35), scale=1000),
        of_life("RSS idle", "MiB", of_predecessor(0.65)),
        of_life("PSS idle", "MiB", of_predecessor(0.65)),
        of_life("threads idle", "", at_most(2)),
        of_life("wake-ups idle", "1/s", at_most(0)),
        of_life("exit after EOF", "ms", at_most(100), scale=1000),
        of_life("size of tools/list", "kB", of_predecessor(1), at_most(24.8)),
    ]


def _one_life(product: Product) -> dict[str, float]:
    figures: dict[str, float] = {}
    discovered, figures["start to tools, discover"], _ = _started(
        product.command("serve"), product.environ, Server.discover
    )
    discovered.close()
    server, wall_s, tools = _started(product.command("serve"), product.environ, Server.initialize)
    figures["start to tools: CPU"] = server.cpu_s()
    figures["start to tools, initialize"] = wall_s
    figures["size of tools/list"] = len(json.dumps(tools)) / 1000
    with running(server):
        figures["first dispatch"] = timed(dispatch, server, 0)
        time.sleep(IDLE_S)
        before = server.tree.wake_ups()
        time.sleep(IDLE_S)
        figures["wake-ups idle"] = (server.tree.wake_ups() - before) / IDLE_S
        figures["RSS idle"], figures["PSS idle"] = server.tree.memory_mib()
        figures["threads idle"] = server.tree.threads()
    figures["exit after EOF"] = server.exit_s
    return figures


def list_agents(products: Sequence[Product], rounds: int) -> list[Row]:
    """m3: the tool that is called most, one after another and pipelined."""
    walls: Samples = defaultdict(list)
    rates: Samples = defaultdict(list)
    floor: list[float] = []
    request = {"name": "list_agents", "arguments": {}}
    with ExitStack() as stack:
        servers = warm_servers(stack, products)
        echo = stack.enter_context(running(Server(_ECHO, products[0].environ)))
        echo.initialize()
        for _ in range(rounds):
            floor.append(timed(echo.request, "tools/call", request))
            for name, server in servers.items():
                walls[name].append(timed(server.call, "list_agents", {}))
        for _ in range(3):
            for name, server in servers.items():
                rates[name].append(PIPELINED / timed(_pipelined, server, request))
    return [
        row(
            "m3",
            "list_agents, 10 agents",
            "ms",
            medians(walls, 1000),
            of_predecessor(0.1),
            floor=median(floor) * 1000,
            floor_is="echo server",
        ),
        row(
            "m3",
            "list_agents pipelined",
            "1/s",
            medians(rates),
            Target(factor=10, of="predecessor", sign=">="),
        ),
    ]


def commands(products: Sequence[Product], rounds: int) -> list[Row]:
    """m7: each command of the CLI beside an interpreter that does nothing."""
    cases = {
        "--version": (["--version"], 0.4),
        "list": (["list"], 0.85),
        "describe": (["describe", "agent0"], 0.85),
        "test (instant child)": (["test", "agent0", "a task"], 1.2),
    }
    rows = []
    for name, (arguments, factor) in cases.items():
        walls: Samples = defaultdict(list)
        floor: list[float] = []
        for _ in range(rounds):
            floor.append(run([products[0].python, "-c", "pass"], products[0].environ).wall_s)
            for product in products:
                took = run(product.command(*arguments), product.environ)
                walls[product.name].append(took.wall_s)
        rows.append(
            row(
                "m7",
                name,
                "ms",
                medians(walls, 1000),
                of_predecessor(factor),
                floor=median(floor) * 1000,
                floor_is="python -c pass",
            )
        )
    return rows


def warm_servers(
    stack: ExitStack,
    products: Sequence[Product],
    extra: Mapping[str, str] | None = None,
    place: Place = HERE,
) -> dict[str, Server]:
    """A running server of each product that has served one dispatch already."""
    servers = {}
    for product in products:
        environ = {**product.environ, **(extra or {})}
        server = Server(product.command("serve"), environ, place)
        servers[product.name] = stack.enter_context(running(server))
        server.initialize()
        dispatch(server, -1)
    return servers


def _started(
    command: Sequence[str],
    environ: Mapping[str, str],
    open_it: Callable[[Server], list[object]],
) -> tuple[Server, float, list[object]]:
    """Start a server and list its tools: the server, the seconds that took, and the tools."""
    begun = time.perf_counter()
    server = Server(command, environ)
    tools = open_it(server)
    return server, time.perf_counter() - begun, tools


def dispatch(server: Server, number: int) -> None:
    """Give one of the agents a task, and fail if it fails."""
    # Each task differs, so that no cache answers.
    answer = server.call("dispatch", {"agent": "agent0", "task": f"task {number}"})
    if not answer["success"]:
        raise RuntimeError(f"the dispatch failed: {answer}")


def _bare_child(environ: Mapping[str, str]) -> None:
    flags = ["-p", "--input-format=stream-json", "--output-format=stream-json", "--verbose"]
    subprocess.run(
        ["claude", *flags],
        input=b'{"type":"user","message":{"role":"user","content":"a task"}}\n',
        stdout=subprocess.PIPE,
        env=environ,
        check=True,
    )


def _pipelined(server: Server, request: object) -> None:
    server.answers([server.post("tools/call", request) for _ in range(PIPELINED)])
