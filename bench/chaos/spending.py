"""Eight servers inside one dispatch spend at once, and are killed at random moments.

    uv run python -m bench.chaos.spending                       10 runs
    uv run python -m bench.chaos.spending --seed 7 --runs 1     repeat one run

An agent that was dispatched stays at work while servers below it give tasks to further agents, all
at once. Each of those agents spends a part of its cap, step by step, and writes down each step
before it reports anything. So what was spent is known from outside, also of agents that were
killed. In each run none of these may be broken:

- the tree spends at most $1 and starts at most 20 runs, the outermost included;
- the ledger has exactly one line for each run that was started, all of one tree, and adds up to at
  most $1;
- no booking is left when everything has ended.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import trio

from agent_dispatch.model.ledger import LedgerLine
from bench.chaos.scene import Client, signal_all
from bench.namespace import enclose
from tests.faults.house import PRODUCT, House

SERVERS = 8
TASKS = 50
"""Of each server."""
MOST_USD = 1.0
MOST_RUNS = 20
_SETTINGS = f"""
max_concurrency = {MOST_RUNS}
max_cost_per_tree_usd = {MOST_USD}
max_cost_per_day_usd = {MOST_USD}
max_runs_per_tree = {MOST_RUNS}
"""
_KILLED_WITHIN_S = 1.5
_ANSWERED_S = 120.0
_OVER_S = 30.0
_ROUNDING_USD = 1e-6

_AGENT = """
import random
def note(*words):
    fd = os.open({notes!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(fd, (" ".join(map(str, words)) + "\\n").encode())
    os.close(fd)
job = os.environ["AGENT_DISPATCH_JOB"]
caps = [float(a.partition("=")[2]) for a in sys.argv if a.startswith("--max-budget-usd=")]
note("start", job)
asked = read_turn()
init()
spent = 0.0
if "outermost" in asked:
    with open({environ!r} + ".new", "w") as file:
        json.dump(dict(os.environ), file)
    os.rename({environ!r} + ".new", {environ!r})
    gate()
else:
    chance = random.Random(job)
    steps = chance.randint(1, 4)
    for _ in range(steps):
        step = caps[0] / steps * chance.uniform({appetite}, 1)
        note("spend", step)
        spent += step
        time.sleep(chance.uniform(0, 0.1))
result(model_usage_since_last_result={{"model": {{"costUSD": spent}}}})
"""


@dataclass(kw_only=True)
class Outcome:
    """The outcome of one run."""

    seed: int
    killed: int
    started: int = 0
    spent_usd: float = 0.0
    entered_usd: float = 0.0
    answers: Counter[str] = field(default_factory=Counter)
    """Answers to the callers, by `done` or their error type."""
    lost: int = 0
    """Lines of runs whose server was killed."""
    took_s: float = 0.0
    violations: list[str] = field(default_factory=list)


async def play(seed: int) -> Outcome:
    """Carry out one run; no process or file of it is left afterwards."""
    chance = random.Random(seed)
    outcome = Outcome(seed=seed, killed=seed % SERVERS)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="agent-dispatch-spending-") as name:
        directory = Path(name)
        notes, environ = directory / "notes", directory / "environ"
        # Those that spend little reach the number of runs, the others the amount.
        appetite = chance.choice([0.0, 0.5, 1.0])
        script = _AGENT.format(notes=str(notes), environ=str(environ), appetite=appetite)
        house = House(directory, script, settings=_SETTINGS)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_dispatch_outermost, house)
            with trio.fail_after(_OVER_S):
                while not environ.exists():  # noqa: ASYNC110  # not our child
                    await trio.sleep(0.01)
            house.environ = json.loads(environ.read_text())
            await _spend(house, outcome, chance, notes)
            await house.open_gate()
        del house.environ["AGENT_DISPATCH_JOB"]
        await _quiet(house)
        await house.command("stats")
        _check(outcome, notes, house)
    outcome.took_s = time.monotonic() - begun
    return outcome


async def _dispatch_outermost(house: House) -> None:
    command = [*PRODUCT, "run", "infra", "outermost"]
    await trio.run_process(
        command, env=house.environ, check=False, capture_stdout=True, stderr=subprocess.DEVNULL
    )


async def _spend(house: House, outcome: Outcome, chance: random.Random, notes: Path) -> None:
    """Let all servers give out all tasks; some are killed meanwhile."""
    async with AsyncExitStack() as stack:
        clients: list[Client] = []
        for _ in range(SERVERS):
            mcp = await stack.enter_async_context(house.serving())
            clients.append(Client(mcp.process, house.config.parent))
        doomed = chance.sample(range(SERVERS), outcome.killed)
        async with trio.open_nursery() as nursery:
            for client in clients:
                nursery.start_soon(client.read)
            for number in doomed:
                after_s = chance.uniform(0, _KILLED_WITHIN_S)
                nursery.start_soon(_kill, clients[number], notes, after_s)
            with trio.move_on_after(_ANSWERED_S) as patience:
                async with trio.open_nursery() as asking:
                    for number, client in enumerate(clients):
                        asking.start_soon(_ask, client, number)
                for client in clients:
                    await client.answered()
            if patience.cancelled_caught:
                outcome.violations.append("not every request was answered")
            nursery.cancel_scope.cancel()
    for client in clients:
        for answer in client.answers.values():
            kind = answer.get("error_type", "done") if isinstance(answer, dict) else "error"
            outcome.answers[kind] += 1


async def _ask(client: Client, number: int) -> None:
    for index in range(TASKS):
        await client.post("dispatch", agent="infra", task=f"spend #{number}.{index}")


async def _kill(client: Client, notes: Path, after_s: float) -> None:
    while not _has_begun(notes):  # noqa: ASYNC110  # not our children
        await trio.sleep(0.01)
    await trio.sleep(after_s)
    signal_all([client.process.pid], signal.SIGKILL)


async def _quiet(house: House) -> None:
    """Wait until nothing of the run is left; a guard may still be ending an agent."""
    with trio.fail_after(_OVER_S):
        while house.alive():  # noqa: ASYNC110  # not our children
            await trio.sleep(0.05)


def _has_begun(notes: Path) -> bool:
    """Whether an agent below the outermost was started."""
    return notes.read_text().count("start") > 1


def _check(outcome: Outcome, notes: Path, house: House) -> None:
    started: list[str] = []
    for what, value in map(str.split, notes.read_text().splitlines()):
        if what == "start":
            started.append(value)
        else:
            outcome.spent_usd += float(value)
    lines = list(house.store.ledger.lines(0))
    outcome.started = len(started)
    outcome.entered_usd = sum(line.spent_usd for line in lines)
    outcome.lost = sum(line.error_type == "lost" for line in lines)
    outcome.violations += _violations(outcome, started, lines)
    if any((house.jobs / "ledger" / "open").iterdir()):
        outcome.violations.append("a booking is left")


def _violations(outcome: Outcome, started: list[str], lines: list[LedgerLine]) -> list[str]:
    entered = Counter(line.job_id for line in lines)
    found = {
        f"${outcome.spent_usd:.6f} was spent": outcome.spent_usd > MOST_USD + _ROUNDING_USD,
        f"the ledger says ${outcome.entered_usd:.6f}": outcome.entered_usd
        > MOST_USD + _ROUNDING_USD,
        f"{outcome.started} runs were started": outcome.started > MOST_RUNS,
        f"{len(lines)} runs are in the ledger": len(lines) > MOST_RUNS,
        "a run that was started has no line": bool(set(started) - entered.keys()),
        "a run has two lines": max(entered.values(), default=0) > 1,
        "the lines are of several trees": len({line.tree for line in lines}) > 1,
    }
    return [what for what, is_wrong in found.items() if is_wrong]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print; the exit status is 0 if nothing was broken."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(prog="python -m bench.chaos.spending")
    parser.add_argument("--seed", type=int, default=1, help="seed of the first run (default: 1)")
    parser.add_argument("--runs", type=int, default=10, help="number of runs (default: 10)")
    options = parser.parse_args(given)
    enclosure = enclose("bench.chaos.spending", given)
    if isinstance(enclosure, int):
        return enclosure
    print(f"{SERVERS} servers x {TASKS} tasks; ceilings ${MOST_USD:g}, {MOST_RUNS} runs")
    print("seed  killed  started  spent    ledger   lost  answers")
    is_broken = False
    for seed in range(options.seed, options.seed + options.runs):
        outcome = trio.run(play, seed)
        answers = ", ".join(f"{count} {kind}" for kind, count in outcome.answers.most_common())
        print(
            f"{seed:4}  {outcome.killed:6}  {outcome.started:7}  ${outcome.spent_usd:.4f} "
            f" ${outcome.entered_usd:.4f}  {outcome.lost:4}  {answers} ({outcome.took_s:.1f} s)",
            flush=True,
        )
        for violation in outcome.violations:
            is_broken = True
            print(f"      VIOLATED {violation}", flush=True)
    return 1 if is_broken else 0


if __name__ == "__main__":
    sys.exit(main())
