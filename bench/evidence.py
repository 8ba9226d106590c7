"""What it costs to see what a run did to its work tree (m1)."""

import os
import subprocess
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import trio

from agent_dispatch.claude.launcher import Launcher
from agent_dispatch.core.command import MARKER_VARIABLE, Command
from agent_dispatch.run.work_tree import WorkTrees
from agent_dispatch.threads import DirectoryThreads
from bench.harness import timed
from bench.report import OURS, Row, Samples, at_most, row
from bench.workshop import Workshop, dispatch, serving, succeeded

FILES = 5000
_FOLDERS = 100


def evidence(shop: Workshop, rounds: int) -> list[Row]:
    """A dispatch in a repository beside one outside of Git; and what looking for one costs."""
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
    looks_ms = trio.run(_looks_ms, str(root / "agent0"), product.environ, rounds)
    return [
        row(
            "m1",
            "evidence outside of Git: looking for a work tree",
            "ms",
            {OURS: looks_ms},
            at_most(5),
        ),
        row(
            "m1",
            f"evidence in a work tree of {FILES} files: what is added, wall",
            "ms",
            added,
            at_most(80),
            floor=(floor_ms, "a dispatch outside of Git"),
        ),
    ]


async def _looks_ms(directory: str, environ: Mapping[str, str], rounds: int) -> float:
    """How long a run outside of Git waits for its two looks."""
    trees = WorkTrees(Launcher(None), DirectoryThreads())
    command = Command(("claude",), directory, {**environ, MARKER_VARIABLE: "bench"})
    times = []
    async with trio.open_nursery() as nursery:
        for _ in range(rounds):
            begun = time.perf_counter()
            watch = trees.watch(command, nursery)
            await watch.may_start()
            await watch.may_act()
            await watch.changes()
            times.append(time.perf_counter() - begun)
    return median(times) * 1000


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
