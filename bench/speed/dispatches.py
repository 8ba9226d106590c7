"""The time that a dispatch adds to its agent (m1).

Every measurement of `bench.speed` takes the products in turn within one round, so that ratios hold
on a machine with other load.
"""

import os
import subprocess
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from bench.speed.mcp_client import children_cpu_s, timed
from bench.speed.rows import OURS, Row, Samples, at_most, of_predecessor, row
from bench.speed.workshop import Workshop, dispatch, serving, succeeded, task, warm_servers

MESSAGES = 400
FILES = 5000
_FOLDERS = 100


def dispatch_overhead(shop: Workshop, rounds: int) -> list[Row]:
    """The time that a dispatch adds to an instant child.

    We write the job to disk durably before the child starts and after it ends; the predecessor
    does not. So the target is to be as fast as the predecessor.
    """
    bare: list[float] = []
    walls = Samples()
    products = shop.products()
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
    wall = walls.medians(1000)
    floor = (median(bare) * 1000, "bare child")
    added_ms = {name: value - floor[0] for name, value in wall.items()}
    cpu_ms = {name: (value - bare_cpu_s) / rounds * 1000 for name, value in cpu_s.items()}
    added, even = "instant child: what is added", of_predecessor(1)
    return [
        row("m1", "dispatch of an instant child, wall", "ms", wall, even, floor=floor),
        row("m1", f"{added}, wall", "ms", added_ms, even, at_most(12), floor=floor),
        row("m1", f"{added}, CPU with helpers", "ms", cpu_ms, even, at_most(14)),
    ]


def _bare_child(environ: Mapping[str, str]) -> None:
    flags = ["-p", "--input-format=stream-json", "--output-format=stream-json", "--verbose"]
    subprocess.run(
        ["claude", *flags],
        input=b'{"type":"user","message":{"role":"user","content":"a task"}}\n',
        stdout=subprocess.PIPE,
        env=environ,
        check=True,
    )


def watched_dispatch(shop: Workshop, rounds: int) -> list[Row]:
    """A dispatch whose child prints many messages while progress is reported."""
    walls = Samples()
    products = shop.products()
    with ExitStack() as stack:
        servers = warm_servers(stack, products, shop.stage(lines=MESSAGES))
        begun = {name: server.cpu_s() for name, server in servers.items()}
        for number in range(rounds):
            for product in products:
                call = servers[product.name].call
                took_s = timed(call, product.watched_tool, task(number), watched=True)
                walls[product.name].append(took_s)
        cpu_ms = {
            name: (server.cpu_s() - begun[name]) / rounds * 1000 for name, server in servers.items()
        }
    name = f"watched dispatch of {MESSAGES} messages"
    return [
        row("m1", f"{name}, wall", "ms", walls.medians(1000), of_predecessor(0.15)),
        row("m1", f"{name}, CPU with the child", "ms", cpu_ms, of_predecessor(0.4)),
    ]


def evidence(shop: Workshop, rounds: int) -> list[Row]:
    """The time that it takes to see what a run did to its Git work tree."""
    inside, outside = Samples(), Samples()
    product = shop.products()[0]
    root = Path(product.environ["AGENT_DISPATCH_CONFIG"]).parent / "projects"
    _make_repository(root / "agent1", product.environ)
    with ExitStack() as stack:
        server = serving(stack, product)
        dispatch(server, -1)
        for number in range(rounds):
            outside[OURS].append(timed(dispatch, server, number))
            asked = {"agent": "agent1", "task": f"task {number}"}
            inside[OURS].append(timed(lambda: succeeded(server.call("dispatch", asked))))  # noqa: B023
    floor_ms = median(outside[OURS]) * 1000
    added = {name: value - floor_ms for name, value in inside.medians(1000).items()}
    name = f"evidence in a work tree of {FILES} files: what is added, wall"
    floor = (floor_ms, "a dispatch outside of Git")
    return [row("m1", name, "ms", added, at_most(80), floor=floor)]


def _make_repository(directory: Path, environ: Mapping[str, str]) -> None:
    for number in range(FILES):
        folder = directory / f"package{number % _FOLDERS}"
        folder.mkdir(exist_ok=True)
        (folder / f"module{number}.py").write_text(f"NUMBER = {number}\n" * 20)
    author = {"GIT_AUTHOR_NAME": "bench", "GIT_AUTHOR_EMAIL": "bench@localhost"}
    committer = {"GIT_COMMITTER_NAME": "bench", "GIT_COMMITTER_EMAIL": "bench@localhost"}
    env = {**environ, **author, **committer, "GIT_CONFIG_GLOBAL": os.devnull}
    for words in (("init", "-q"), ("add", "."), ("commit", "-q", "-m", "begin")):
        subprocess.run(["git", *words], cwd=directory, env=env, check=True, capture_output=True)
