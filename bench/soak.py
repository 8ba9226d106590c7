"""Mixed load on one server for minutes: its memory, descriptors and processes must not grow.

    uv run python -m bench.soak                 one minute
    uv run python -m bench.soak --minutes 10 --write-readme

Rounds of dispatches, background jobs, parallel calls, cancellations and quick tools go over MCP to
a real server with a scripted claude. After each round, when every call has its answer, the server
and its helpers are measured. The slope of each figure after a warm-up (Theil-Sen: the median of
the slopes between all pairs of samples), times the measured time, must not exceed its limit.
The exit status is 1 if it does, or if an answer was wrong.
"""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import Any

import trio

from bench.chaos.scene import Client, Scene
from bench.kept import about_this_run, in_words, keep
from bench.namespace import enclose
from bench.processes import open_files_of, pss_mib, rss_mib, threads_of

BLOCK = "soak"
"""The name of the block in docs/reliability.md and of the kept file."""
_LIMIT = 5
_WARM_UP = 0.25
"""The share of the time in which modules are imported and caches fill."""
_AT_LEAST = 8
"""The fewest samples for a slope."""
_ANSWER_S = 60.0
_COLLECT_EVERY = 10


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The figures when every call has its answer; of the server unless stated otherwise."""

    at_s: float
    descriptors: int
    threads: int
    rss_mib: float
    helper_mib: float
    """PSS per helper: the number of helpers follows the peak load and is a figure of its own."""
    processes: int
    """The server and its helpers."""


FIGURES = {
    "descriptors": ("descriptors of the server", 4.0),
    "threads": ("threads of the server", 4.0),
    "rss_mib": ("memory of the server (RSS), MiB", 6.0),
    "helper_mib": ("memory of each of its helpers (PSS), MiB", 0.3),
    "processes": ("server and helpers, processes", 4.0),
}
"""What each figure of a sample is, and the most that it may grow in the measured time."""


class Load:
    """Makes all kinds of calls to one server, round after round."""

    def __init__(self, scene: Scene, client: Client, seed: int) -> None:
        self._scene = scene
        self._client = client
        self._chance = random.Random(seed)
        self._number = 0
        self.rounds = 0
        self.calls = 0
        self.wrong: list[str] = []
        """Wrong answers."""

    async def go_round(self) -> None:
        """Make all kinds of calls at once and wait for the answers."""
        self.rounds += 1
        twin = self._task("answers late")
        async with trio.open_nursery() as nursery:
            for task in [*(self._task("answers") for _ in range(5)), twin, twin]:
                nursery.start_soon(self._dispatch, task)
            nursery.start_soon(self._parallel)
            for behaviour in ("answers", "answers at length", "floods"):
                nursery.start_soon(self._background, self._task(behaviour))
            nursery.start_soon(self._cancelled, self._task("daemon"))
            nursery.start_soon(self._withdrawn, self._task("ignoring"))
            nursery.start_soon(self._dispatch, self._task("quits"), False)
            nursery.start_soon(self._quick)
        if self.rounds % _COLLECT_EVERY == 0:
            await self._call("dispatch_gc", max_age_days=0)
        self._client.forget()

    def _task(self, behaviour: str) -> str:
        self._number += 1
        return f"{behaviour} #{self._number}"

    async def _call(self, tool: str, **arguments: object) -> Any:
        self.calls += 1
        request = await self._client.post(tool, **arguments)
        if request is None:
            raise EOFError("the server has ended")
        with trio.fail_after(_ANSWER_S):
            return await self._client.answer_to(request)

    def _expect(self, holds: bool, what: str, answer: object) -> None:
        if not holds:
            self.wrong.append(f"{what}: {str(answer)[:300]}")

    async def _dispatch(self, task: str, success: bool = True) -> None:
        answer = await self._call("dispatch", agent="infra", task=task)
        self._expect(answer["success"] is success, task, answer)

    async def _parallel(self) -> None:
        tasks = [{"agent": "infra", "task": self._task("answers late")} for _ in range(3)]
        answers = await self._call("dispatch_parallel", dispatches=tasks)
        self._expect(all(answer["success"] for answer in answers), "parallel", answers)

    async def _background(self, task: str) -> None:
        job_id = (await self._call("dispatch_async", agent="infra", task=task))["job_id"]
        job = await self._call("dispatch_wait", job_id=job_id, timeout_seconds=_ANSWER_S)
        self._expect(job["status"] == "done", task, job)
        page = await self._call("fetch_result", ref=job_id, max_chars=1000)
        self._expect(page["success"], task, page)

    async def _cancelled(self, task: str) -> None:
        job_id = (await self._call("dispatch_async", agent="infra", task=task))["job_id"]
        await trio.sleep(self._chance.uniform(0, 0.3))
        answer = await self._call("dispatch_cancel", job_id=job_id)
        self._expect(answer["outcome"] == "cancelled", task, answer)

    async def _withdrawn(self, task: str) -> None:
        request = await self._client.post("dispatch", agent="infra", task=task)
        await trio.sleep(self._chance.uniform(0, 0.3))
        if request is not None:
            await self._client.withdraw(request)

    async def _quick(self) -> None:
        agents = await self._call("list_agents")
        self._expect(agents[0]["healthy"], "list_agents", agents)
        rows = await self._call("dispatch_jobs", limit=20)
        self._expect(len(rows) <= 20, "dispatch_jobs", rows)
        words = f"round {self.rounds}"
        await self._call("update_agent", name="infra", description=words)
        details = await self._call("inspect_agent", name="infra")
        self._expect(details["description"] == words, "inspect_agent", details)
        refused = await self._call("dispatch", agent="nobody", task="go")
        self._expect("Unknown agent" in refused, "an unknown agent", refused)


async def soak(minutes: float, seed: int, samples: list[Sample]) -> Load:
    """Load one server for the given time and add a sample after each round."""
    with tempfile.TemporaryDirectory(prefix="agent-dispatch-soak-") as directory:
        scene = Scene(Path(directory), _LIMIT)
        try:
            async with scene.served(None) as client:
                load = Load(scene, client, seed)
                begun = time.monotonic()
                while (at_s := time.monotonic() - begun) < minutes * 60:
                    await load.go_round()
                    if not await scene.gone(scene.agents, _ANSWER_S):
                        raise RuntimeError(f"agents are still running: {scene.alive()}")
                    samples.append(_look(scene, client.process.pid, at_s))
            return load
        finally:
            scene.sweep()


def _look(scene: Scene, server: int, at_s: float) -> Sample:
    helpers = [pid for pid in scene.alive() if pid != server]
    return Sample(
        at_s=at_s,
        descriptors=open_files_of(server),
        threads=threads_of(server),
        rss_mib=rss_mib([server]),
        helper_mib=pss_mib(helpers) / max(len(helpers), 1),
        processes=len(helpers) + 1,
    )


def trends(samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """How each figure developed after the warm-up; first and last are medians of a quarter.

    Raises:
        ValueError: There are too few samples.
    """
    counted = [sample for sample in samples if sample.at_s >= samples[-1].at_s * _WARM_UP]
    if len(counted) < _AT_LEAST:
        raise ValueError(f"only {len(counted)} rounds after the warm-up: use more --minutes")
    quarter = max(1, len(counted) // 4)
    found = []
    for figure, (_, limit) in FIGURES.items():
        points = [(sample.at_s, float(getattr(sample, figure))) for sample in counted]
        slope = median((y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in combinations(points, 2))
        growth = slope * (points[-1][0] - points[0][0])
        first, last = (median(y for _, y in part) for part in (points[:quarter], points[-quarter:]))
        trend = {"figure": figure, "first": first, "last": last}
        found.append(trend | {"growth": growth, "limit": limit, "flat": growth <= limit})
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print; the exit status is 0 if everything stayed flat."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(given)
    enclosure = enclose("bench.soak", given)
    if isinstance(enclosure, int):
        return enclosure
    samples: list[Sample] = []
    load = trio.run(soak, options.minutes, options.seed, samples)
    try:
        found = trends(samples)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    about = {
        **about_this_run(f"python -m bench.soak --minutes {options.minutes:g}"),
        "minutes": options.minutes,
        "rounds": load.rounds,
        "calls": load.calls,
        "answers that were wrong": len(load.wrong),
    }
    result = {"about": about, "trends": found}
    if options.write_readme:
        keep(BLOCK, result, as_markdown)
    print(as_markdown(result))
    for what in load.wrong[:20]:
        print(f"WRONG {what}")
    return 0 if all(trend["flat"] for trend in found) and not load.wrong else 1


def as_markdown(result: Mapping[str, Any]) -> str:
    """The table for docs/reliability.md and the terminal."""
    lines = ["| | first | last | growth | limit | |", "| --- | --- | --- | --- | --- | --- |"]
    for trend in result["trends"]:
        figures = (trend[column] for column in ("first", "last", "growth", "limit"))
        cells = " | ".join(f"{figure:.2f}" for figure in figures)
        verdict = "flat" if trend["flat"] else "grows"
        name, _ = FIGURES[trend["figure"]]
        lines.append(f"| {name} | {cells} | {verdict} |")
    return "\n".join([*lines, "", f"{in_words(result['about'])}."])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.soak",
        description="Check that the memory, descriptors and processes of a server do not grow.",
    )
    parser.add_argument("--minutes", type=float, default=1.0, help="duration (default: 1)")
    parser.add_argument("--seed", type=int, default=1, help="seed for the moments of cancellations")
    parser.add_argument(
        "--write-readme",
        action="store_true",
        help="write the result into docs/reliability.md and bench/results",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
