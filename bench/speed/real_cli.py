"""The real Claude Code CLI, talking to a stand-in for its API on loopback (m8)."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median

from bench.speed.mcp_client import Server, timed
from bench.speed.rows import Row, Samples, of_floor, of_predecessor, row
from bench.speed.workshop import Product, Workshop, dispatch, warm_servers
from tests.e2e.claude_cli import installed_claude
from tests.e2e.network import Place, open_network
from tests.e2e.world import World
from tests.npm import cache_folder

ROUNDS = 3
"""The rounds of a dialogue; each has two turns."""
_BARE = "bare claude -p"


@contextmanager
def open_real_world(shop: Workshop) -> Iterator[Workshop]:
    """A workshop in `shop` whose agents are the CLI of the tests, for the duration of the block.

    Raises:
        CannotInstallError: The CLI is missing and cannot be installed.
    """
    claude = installed_claude(cache_folder(os.environ))
    with ExitStack() as stack:
        network = stack.enter_context(open_network())
        listener = stack.enter_context(network.listen())
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        fd = listener.fileno()
        stub = subprocess.Popen(
            [sys.executable, "-m", "bench.speed.stub_api", str(fd)], pass_fds=[fd]
        )
        stack.callback(stub.wait)
        stack.callback(stub.terminate)
        root = shop.folder()
        world = World(root, claude=claude, place=network.place, api_url=url)
        yield replace(shop, root=root, environ=world.environ, place=network.place)


class BareClaude:
    """The CLI without a product, run once for each task."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.walls_s: list[float] = []
        self.cpu_s: list[float] = []

    def ask(self, number: int) -> None:
        """Run it once."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"task {number}\n")
        self._process.stdin.flush()
        took: dict[str, float] = json.loads(self._process.stdout.readline())
        self.walls_s.append(took["wall_s"])
        self.cpu_s.append(took["cpu_s"])


@contextmanager
def _bare_claude(environ: Mapping[str, str], place: Place) -> Iterator[BareClaude]:
    with subprocess.Popen(
        [*place.prefix, sys.executable, "-m", "bench.speed.bare_claude"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environ,
        pass_fds=place.pass_fds,
    ) as process:
        yield BareClaude(process)


def real_dispatches(world: Workshop, rounds: int) -> list[Row]:
    """The time that a dispatch adds to the bare CLI."""
    bare, _, walls, cpu = _beside_bare(world, world.products(), rounds, sessions=False)
    near = (of_floor(1.25), of_predecessor(0.16))
    wall_floor, cpu_floor = (median(bare.walls_s), _BARE), (fmean(bare.cpu_s), _BARE)
    name = "dispatch of the real CLI"
    return [
        row("m8", f"{name}, wall", "s", walls.medians(), *near, floor=wall_floor),
        row("m8", f"{name}, CPU with it", "s", cpu, of_floor(1.15), floor=cpu_floor),
    ]


def registered(world: Workshop, rounds: int) -> list[Row]:
    """The same with each product registered at user scope by its own `init`.

    Then every session starts the product's server, and so does every agent.
    """
    products = [_at_user_scope(world, product) for product in world.products()]
    bare, sessions, walls, cpu = _beside_bare(world, products, rounds, sessions=True)
    wall_floor, cpu_floor = (median(bare.walls_s), _BARE), (fmean(bare.cpu_s), _BARE)
    bare_name, name = f"registered: {_BARE}, wall", "registered: dispatch"
    return [
        row("m8", bare_name, "s", sessions.medians(), of_floor(1.6), floor=wall_floor),
        row("m8", f"{name}, wall", "s", walls.medians(), of_floor(1.8), floor=wall_floor),
        row("m8", f"{name}, CPU with it", "s", cpu, of_floor(1.6), floor=cpu_floor),
    ]


def _beside_bare(
    world: Workshop, products: list[Product], rounds: int, *, sessions: bool
) -> tuple[BareClaude, Samples, Samples, dict[str, float]]:
    """The bare CLI, and of each product: bare sessions, dispatches, and CPU of a dispatch."""
    session_s, walls = Samples(), Samples()
    with ExitStack() as stack:
        bare = stack.enter_context(_bare_claude(world.environ, world.place))
        beside: dict[str, BareClaude] = {}
        for product in products if sessions else ():
            beside[product.name] = stack.enter_context(_bare_claude(product.environ, world.place))
            session_s[product.name] = beside[product.name].walls_s
        servers = warm_servers(stack, products)
        begun = {name: server.cpu_s() for name, server in servers.items()}
        for number in range(rounds):
            bare.ask(number)
            for name, server in servers.items():
                if name in beside:
                    beside[name].ask(number)
                walls[name].append(timed(dispatch, server, number))
        cpu_s = {name: (server.cpu_s() - begun[name]) / rounds for name, server in servers.items()}
    return bare, session_s, walls, cpu_s


def _at_user_scope(world: Workshop, product: Product) -> Product:
    home = world.folder()
    # As after activation, but behind the others, so that `claude` is still that of the test.
    path = f"{product.environ['PATH']}:{Path(product.program).parent}"
    environ = {**product.environ, "HOME": str(home), "PATH": path}
    done = subprocess.run(
        [*world.place.prefix, *product.command("init")],
        input="y\n",
        capture_output=True,
        text=True,
        env=environ,
        cwd=home,
        pass_fds=world.place.pass_fds,
        check=False,
    )
    config = home / ".claude.json"
    servers = json.loads(config.read_text()).get("mcpServers", {}) if config.exists() else {}
    if "agent-dispatch" not in servers:
        raise RuntimeError(f"{product.name} did not register itself: {done.stdout}{done.stderr}")
    return replace(product, environ=environ)


def dialogues(world: Workshop, rounds: int) -> list[Row]:
    """A whole dialogue, compared with as many runs of the bare CLI as it has turns."""
    walls = Samples()
    turns = 2 * ROUNDS
    with ExitStack() as stack:
        bare = stack.enter_context(_bare_claude(world.environ, world.place))
        servers = warm_servers(stack, world.products())
        for number in range(rounds):
            bare.ask(number)
            for name, server in servers.items():
                took_s, held = _dialogue(server, f"topic {number}")
                if held != turns:
                    raise RuntimeError(f"the dialogue of {name} had {held} turns, not {turns}")
                walls[name].append(took_s)
    floor = (turns * median(bare.walls_s), f"{turns} x {_BARE}")
    name = f"dialogue of {ROUNDS} rounds, wall"
    return [row("m8", name, "s", walls.medians(), of_floor(1.15), floor=floor)]


def _dialogue(server: Server, topic: str) -> tuple[float, int]:
    """Hold a dialogue; returns its seconds and its number of turns."""
    arguments = {
        "requester": "agent0",
        "responder": "agent1",
        "topic": topic,
        "max_rounds": ROUNDS,
    }
    begun = time.perf_counter()
    answer = server.call("dispatch_dialogue", arguments)
    return time.perf_counter() - begun, len(answer["conversation"])
