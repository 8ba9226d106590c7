"""What background jobs and their records cost, and what is left when servers end.

    uv run python -m bench.jobs                             this product and its floors
    uv run python -m bench.jobs --against PROGRAM           beside the published predecessor
    uv run python -m bench.jobs --only crash --kills 600    the store under kill -9

The agent is a small program that answers at once, or when it is told to. The long histories are
copies of a real record, in a folder that is removed afterwards.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench import background, histories
from bench.command import Workshop, add_options, open_workshop, say, show
from bench.endings import endings
from bench.report import Row, at_least, at_most, row

GROUPS = ("m5", "m6", "m7", "m9", "m10", "crash")
_REPOSITORY = Path(__file__).parents[1]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and say by the exit status whether the targets hold."""
    options = _parser().parse_args(arguments)
    with open_workshop(options) as workshop:
        return show(_measure(workshop, options), workshop, options)


def _measure(workshop: Workshop, options: argparse.Namespace) -> list[Row]:
    wanted = set(options.only or GROUPS)
    rounds: int = options.rounds
    few = max(3, rounds // 20)
    rows: list[Row] = []
    if "m5" in wanted:
        say("background jobs")
        products, root = workshop.products("m5"), workshop.root / "m5"
        rows += background.submissions(products, root / "submissions", rounds)
        rows += background.wake_ups(products, root / "wake-ups", rounds)
        standin = workshop.standin
        rows += background.sudden_ends(products[0], root / "sudden", standin, few)
        rows += background.a_hundred(products, root / "hundred", min(few, 3))
    if wanted & {"m6", "m7"}:
        say("long histories")
        products, root = workshop.products("m6"), workshop.root / "m6"
        long = [histories.History(product, root) for product in products]
        rows += histories.listings(long, root, few)
    if "m9" in wanted:
        say(f"{background.AT_ONCE} jobs at once")
        products = workshop.products("m9", limit=background.AT_ONCE)
        rows += background.at_once(products, workshop.root / "m9" / "stages", workshop.standin)
    if "m10" in wanted:
        say("ends of servers")
        products = workshop.products("m10")
        rows += endings(products, workshop.root / "m10" / "stages", workshop.standin)
    if "crash" in wanted:
        say(f"{options.kills} times kill -9")
        rows += _crashes(workshop.root / "crash", options.kills, options.seed)
    return [row for row in rows if row.group in wanted]


def _crashes(folder: Path, kills: int, seed: int) -> list[Row]:
    """Kill writers of the store at random moments, and check what they leave after each."""
    words = ["crash", str(folder), str(kills), str(seed)]
    command = [sys.executable, "-m", "tests.jobs.owners", *words]
    done = subprocess.run(command, cwd=_REPOSITORY, stdout=subprocess.PIPE, check=True)
    report = json.loads(done.stdout)
    for violation in report["violations"]:
        print(violation, file=sys.stderr)
    wrong = {"agent-dispatch": float(len(report["violations"]))}
    seen = {"agent-dispatch": float(report["acknowledged"])}
    killed = f"{report['kills']} kills (seed {seed})"
    return [
        row("crash", f"jobs acknowledged in {killed}", "", seen, at_least(kills)),
        row("crash", "of these lost, torn, or not as acknowledged", "", wrong, at_most(0)),
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.jobs", description="What background jobs and their records cost."
    )
    add_options(parser, rounds=100, groups=GROUPS)
    parser.add_argument(
        "--kills", type=int, default=120, help="writers to kill at random moments (default: 120)"
    )
    parser.add_argument("--seed", type=int, default=20260101, help="of those moments")
    return parser


if __name__ == "__main__":
    sys.exit(main())
