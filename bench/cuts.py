"""Cut links to another machine at random moments, and check that nothing is lost or run twice.

    uv run python -m bench.cuts                        20 runs
    uv run python -m bench.cuts --seed 1 --runs 200
    uv run python -m bench.cuts --seed 77 --runs 1     repeat one run

Run number n has the seed `SEED + n`, which alone determines what the run does. The other machine is
another home directory on this one, behind a cable that can be stopped and killed (`bench.cable`).
After each run: no dispatch has started more than one agent, and exactly one if it was answered;
each answer is what the agent said, to the byte; no process of the run is left. Otherwise the exit
status is 1.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from tests.census import Census
from tests.remote.machine import Machine, Program

LEASE_S = 6.0
SETTLE_S = 15.0
PATIENCE_S = 90.0
CABLE = Path(__file__).with_name("cable.py")


class Cut(NamedTuple):
    """One thing that goes wrong."""

    kind: str
    at_s: float
    for_s: float


class Plan(NamedTuple):
    """What one run does."""

    seed: int
    shape: str
    """`call`, `background`, `parallel` or `session`."""
    sleep_s: float
    chars: int
    cuts: tuple[Cut, ...]


KINDS = ("link", "stub", "stall", "client", "host")
SHAPES = ("call", "background", "parallel", "session")


def make_plan(seed: int) -> Plan:
    """Choose at random what a run does."""
    chance = random.Random(seed)
    shape = chance.choice(SHAPES)
    # These are more likely, because killing the client or the host ends the run.
    kinds = [*("link", "stub", "stall") * 3, "client", "host"]
    cuts = tuple(
        Cut(chance.choice(kinds), chance.uniform(0, 3.5), chance.uniform(0.1, LEASE_S - 2.5))
        for _ in range(chance.choice((1, 1, 2)))
    )
    size = chance.choice((0, 1_000, 900_000))
    return Plan(seed, shape, round(chance.uniform(0, 2.5), 2), size, cuts)


class Run:
    """One run, in home directories of its own."""

    def __init__(self, plan: Plan, place: Path) -> None:
        """Set up both machines."""
        self.plan = plan
        self.laptop, self.gpu = Machine(place / "laptop"), Machine(place / "gpu")
        self.on_laptop, self.on_gpu = Census(), Census()
        self.laptop.environ |= self.on_laptop.mark
        self.gpu.environ |= self.on_gpu.mark
        self.gpu.project("train")
        cable = [sys.executable, "-I", "-S", str(CABLE), str(place)]
        self.laptop.reach(self.gpu, "gpu", lease_seconds=LEASE_S, through=cable)
        self.laptop.link("train", "gpu")
        self.place = place
        self.problems: list[str] = []
        self.was_killed = False
        self.client: Program | None = None

    def links(self) -> list[tuple[int, int]]:
        """Return the pids of all cables so far, each with that of its command."""
        file = self.place / "links"
        lines = file.read_text().splitlines() if file.exists() else []
        return [(int(cable), int(stub)) for cable, stub in (line.split() for line in lines)]

    def task(self, number: int) -> str:
        """Return the task of one agent."""
        plan = self.plan
        return f"sleep={plan.sleep_s} chars={plan.chars} echo=s{plan.seed}n{number}"

    def play(self) -> list[str]:
        """Run it; return what went wrong."""
        began = time.monotonic()
        cutters = [threading.Thread(target=self._cut, args=(cut, began)) for cut in self.plan.cuts]
        for cutter in cutters:
            cutter.start()
        try:
            getattr(self, f"_{self.plan.shape}")()
        finally:
            for cutter in cutters:
                cutter.join()
        self._check_quiet()
        return self.problems

    def _cut(self, cut: Cut, began: float) -> None:
        time.sleep(max(0, began + cut.at_s - time.monotonic()))
        if cut.kind == "client":
            self.was_killed = True
            if self.client is not None:
                _kill(self.client.pid)
        elif cut.kind == "host":
            self.was_killed = True
            self.on_gpu.sweep()
        else:
            for cable, stub in self.links()[-2:]:
                if cut.kind == "stall":
                    _stall(cable, cut.for_s)
                else:
                    _kill(cable if cut.kind == "link" else stub)

    def _client(self, *argv: str) -> tuple[int, Any]:
        self.client = self.laptop.start(*argv, "--json")
        try:
            out, err = self.client.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.client.kill()
            self.problems.append(f"{argv[0]} took longer than {PATIENCE_S:g} s")
            self.client.communicate()
            return -1, None
        try:
            return self.client.wait(), json.loads(out)
        except ValueError:
            if not self.was_killed:
                self.problems.append(f"{argv[0]} printed no JSON: {out[-200:]!r} {err[-500:]!r}")
            return self.client.wait(), None

    def _expect(self, result: Any, number: int, starts: int) -> None:
        """Check one answer, and that no dispatch started two agents."""
        if len(self.gpu.starts) > starts:
            self.problems.append(f"{len(self.gpu.starts)} agents ran for {starts} dispatches")
        if self.was_killed and not (isinstance(result, dict) and result.get("success")):
            return
        if not isinstance(result, dict) or not result.get("success"):
            self.problems.append(f"no answer: {str(result)[:600]}")
            return
        echo = f"echo=s{self.plan.seed}n{number}"
        wanted = f"answer to sleep={self.plan.sleep_s} chars={self.plan.chars} {echo}"
        said = result["result"]
        whole = said.startswith(wanted) and said.endswith("🎉" + "x" * self.plan.chars)
        if not whole:
            self.problems.append(f"another answer: {said[:200]!r} of {len(said)} characters")

    def _call(self) -> None:
        _, result = self._client("run", "train", self.task(1))
        self._expect(result, 1, 1)

    def _background(self) -> None:
        _, submitted = self._client("run", "train", self.task(1), "--background")
        if submitted is None or "job_id" not in submitted:
            self._expect(submitted, 1, 1)
            return
        for _ in range(5):
            _, job = self._client("wait", submitted["job_id"], "--timeout-seconds", "60")
            if job is not None:
                self._expect(job.get("result"), 1, 1)
                return
        self.problems.append("no waiter got the answer")

    def _parallel(self) -> None:
        file = self.laptop.home / "tasks.json"
        file.write_text(json.dumps([{"agent": "train", "task": self.task(n)} for n in range(4)]))
        _, results = self._client("parallel", str(file))
        for number, result in enumerate(results or [None] * 4):
            self._expect(result, number, 4)

    def _session(self) -> None:
        _, first = self._client("run", "train", self.task(1))
        self._expect(first, 1, 1)
        if not isinstance(first, dict) or not first.get("success"):
            return
        _, second = self._client("run", "train", self.task(2), "--session", first["session_id"])
        self._expect(second, 2, 2)

    def _check_quiet(self) -> None:
        deadline = time.monotonic() + SETTLE_S + LEASE_S
        while left := [*self.on_laptop.alive().values(), *self.on_gpu.alive().values()]:
            if time.monotonic() > deadline:
                self.problems.append(f"processes are left: {left}")
                self.on_laptop.sweep()
                self.on_gpu.sweep()
                return
            time.sleep(0.1)


def _stall(pid: int, for_s: float) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
        time.sleep(for_s)
        os.kill(pid, signal.SIGCONT)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def play(seed: int) -> tuple[Plan, list[str]]:
    """Play one run in a directory that is removed afterwards."""
    plan = make_plan(seed)
    place = Path(tempfile.mkdtemp(prefix="cuts-"))
    try:
        return plan, Run(plan, place).play()
    finally:
        shutil.rmtree(place, ignore_errors=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print; the exit status is 0 if nothing went wrong."""
    parser = argparse.ArgumentParser(prog="python -m bench.cuts", description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=4, help="runs at once")
    options = parser.parse_args(arguments)
    failed, counts = 0, dict.fromkeys(KINDS, 0)
    begun = time.monotonic()
    seeds = range(options.seed, options.seed + options.runs)
    with ThreadPoolExecutor(options.jobs) as pool:
        for plan, problems in pool.map(play, seeds):
            for cut in plan.cuts:
                counts[cut.kind] += 1
            if problems:
                failed += 1
                print(f"seed {plan.seed}: {plan.shape}, {plan.cuts}: {problems}", flush=True)
    cuts = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    took_s = time.monotonic() - begun
    print(f"{options.runs} runs with cuts ({cuts}): {failed} failed; {took_s:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
