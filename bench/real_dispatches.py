"""m8: dispatches of the real CLI beside the bare CLI, in the CLI's network."""

import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median

from bench.harness import Server, timed
from bench.measures import dispatch, warm_servers
from bench.products import Product
from bench.report import Row, Samples, medians, of_floor, of_predecessor, row
from tests.e2e.network import Place

ROUNDS = 3
"""Of a dialogue; each has two turns."""
_BARE = "bare claude -p"


class BareClaude:
    """The CLI without any of the products, run once for each task."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.walls_s: list[float] = []
        self.cpu_s: list[float] = []

    def ask(self, task: str) -> None:
        """Run it once."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(task + "\n")
        self._process.stdin.flush()
        took: dict[str, float] = json.loads(self._process.stdout.readline())
        self.walls_s.append(took["wall_s"])
        self.cpu_s.append(took["cpu_s"])


@contextmanager
def _bare_claude(environ: Mapping[str, str], place: Place) -> Iterator[BareClaude]:
    with subprocess.Popen(
        [*place.prefix, sys.executable, "-m", "bench.bare_claude"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environ,
        pass_fds=place.pass_fds,
    ) as process:
        yield BareClaude(process)


def real_claude(products: Sequence[Product], rounds: int, place: Place) -> list[Row]:
    """What a dispatch takes over the bare CLI."""
    walls: Samples = defaultdict(list)
    with ExitStack() as stack:
        bare = stack.enter_context(_bare_claude(products[0].environ, place))
        servers = warm_servers(stack, products, place=place)
        begun = {name: server.cpu_s() for name, server in servers.items()}
        for number in range(rounds):
            bare.ask(f"task {number}")
            for name, server in servers.items():
                walls[name].append(timed(dispatch, server, number))
        cpu_s = {name: (server.cpu_s() - begun[name]) / rounds for name, server in servers.items()}
    return [
        row(
            "m8",
            "dispatch of the real CLI, wall",
            "s",
            medians(walls),
            of_floor(1.25),
            of_predecessor(0.16),
            floor=median(bare.walls_s),
            floor_is=_BARE,
        ),
        row(
            "m8",
            "dispatch of the real CLI, CPU with it",
            "s",
            cpu_s,
            of_floor(1.15),
            floor=fmean(bare.cpu_s),
            floor_is=_BARE,
        ),
    ]


def registered(products: Sequence[Product], root: Path, rounds: int, place: Place) -> list[Row]:
    """The same where each product is registered at user scope, as its own `init` does it.

    Then every session starts the product's server, and so does every agent.
    """
    installed = [_at_user_scope(product, root, place) for product in products]
    walls: Samples = defaultdict(list)
    with ExitStack() as stack:
        bare = stack.enter_context(_bare_claude(products[0].environ, place))
        sessions = {
            product.name: stack.enter_context(_bare_claude(product.environ, place))
            for product in installed
        }
        servers = warm_servers(stack, installed, place=place)
        begun = {name: server.cpu_s() for name, server in servers.items()}
        for number in range(rounds):
            bare.ask(f"task {number}")
            for name, server in servers.items():
                sessions[name].ask(f"task {number}")
                walls[name].append(timed(dispatch, server, number))
        cpu_s = {name: (server.cpu_s() - begun[name]) / rounds for name, server in servers.items()}
    floor_s = median(bare.walls_s)
    session_s = {name: median(session.walls_s) for name, session in sessions.items()}

    def figure(name: str, figures: Mapping[str, float], factor: float, floor: float) -> Row:
        targets = (of_floor(factor),)
        return row("m8", name, "s", figures, *targets, floor=floor, floor_is=_BARE)

    return [
        figure("registered: bare claude -p, wall", session_s, 1.6, floor_s),
        figure("registered: dispatch, wall", medians(walls), 1.8, floor_s),
        figure("registered: dispatch, CPU with it", cpu_s, 1.6, fmean(bare.cpu_s)),
    ]


def dialogues(products: Sequence[Product], rounds: int, place: Place) -> list[Row]:
    """A whole dialogue, beside as many runs of the bare CLI as it has turns."""
    walls: Samples = defaultdict(list)
    with ExitStack() as stack:
        bare = stack.enter_context(_bare_claude(products[0].environ, place))
        servers = warm_servers(stack, products, place=place)
        for number in range(rounds):
            bare.ask(f"task {number}")
            for name, server in servers.items():
                walls[name].append(timed(_hold_dialogue, server, number))
    turns = 2 * ROUNDS
    return [
        row(
            "m8",
            f"dialogue of {ROUNDS} rounds, wall",
            "s",
            medians(walls),
            of_floor(1.15),
            floor=turns * median(bare.walls_s),
            floor_is=f"{turns} x {_BARE}",
        )
    ]


def _hold_dialogue(server: Server, number: int) -> None:
    arguments = {"requester": "agent0", "responder": "agent1", "topic": f"topic {number}"}
    answer = server.call("dispatch_dialogue", {**arguments, "max_rounds": ROUNDS})
    if len(answer["conversation"]) != 2 * ROUNDS:
        raise RuntimeError(f"the dialogue failed: {answer}")


def _at_user_scope(product: Product, root: Path, place: Place) -> Product:
    home = root / product.name
    home.mkdir(parents=True)
    # As if it had been activated; behind the others, so that `claude` is still the one of the test.
    path = f"{product.environ['PATH']}:{Path(product.program).parent}"
    environ = {**product.environ, "HOME": str(home), "PATH": path}
    done = subprocess.run(
        [*place.prefix, *product.command("init")],
        input="y\n",
        capture_output=True,
        text=True,
        env=environ,
        cwd=home,
        pass_fds=place.pass_fds,
        check=False,
    )
    config = home / ".claude.json"
    servers = json.loads(config.read_text()).get("mcpServers", {}) if config.exists() else {}
    if "agent-dispatch" not in servers:
        raise RuntimeError(f"{product.name} has not registered itself: {done.stdout}{done.stderr}")
    return replace(product, environ=environ)
