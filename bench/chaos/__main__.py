"""Inject faults at random moments and report which invariants held.

    uv run python -m bench.chaos                         40 runs
    uv run python -m bench.chaos --seed 1 --runs 1000    a long test
    uv run python -m bench.chaos --seed 77 --runs 1      repeat one run
    uv run python -m bench.chaos --runs 1000 --write-readme

Run number n has the seed `SEED + n`, which alone determines what the run does. Real servers,
commands and workers run a scripted claude. A witness checks during and after each fault that
every invariant holds (`bench.chaos.witness`); if one is broken, the exit status is 1. If the
machine allows it, everything runs in separate namespaces. There a disk can be filled, and nothing
is left behind even if this program is killed.
"""

import argparse
import sys
import time
from collections.abc import Sequence

import trio

from bench.chaos.plan import make_plan
from bench.chaos.play import Outcome, play
from bench.chaos.report import (
    BLOCK,
    as_line,
    as_markdown,
    as_result,
    as_table,
    summary,
)
from bench.kept import about_this_run, keep
from bench.namespace import Enclosure, enclose


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print; the exit status is 0 if all invariants held."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(given)
    enclosure = enclose("bench.chaos", given)
    if isinstance(enclosure, int):
        return enclosure
    outcomes: list[Outcome] = []
    begun = time.monotonic()
    try:
        trio.run(_play_all, options, enclosure, outcomes)
    except* KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
    if not outcomes:
        return 1
    _show(outcomes, options, enclosure, time.monotonic() - begun)
    whole = len(outcomes) == options.runs
    return 1 if not whole or any(outcome.violations for outcome in outcomes) else 0


async def _play_all(
    options: argparse.Namespace, enclosure: Enclosure, outcomes: list[Outcome]
) -> None:
    seeds = iter(range(options.seed, options.seed + options.runs))

    async def play_some() -> None:
        for seed in seeds:
            outcome = await play(make_plan(seed), may_mount=enclosure.is_own)
            outcomes.append(outcome)
            if outcome.violations or options.verbose:
                print(as_line(outcome), file=sys.stderr, flush=True)

    async with trio.open_nursery() as nursery:
        for _ in range(options.jobs):
            nursery.start_soon(play_some)


def _show(
    outcomes: list[Outcome], options: argparse.Namespace, enclosure: Enclosure, took_s: float
) -> None:
    outcomes.sort(key=lambda outcome: outcome.plan.seed)
    about: dict[str, object] = {
        **about_this_run(_command_line(options)),
        "seed": options.seed,
        "namespaces": enclosure.description,
        "seconds": round(took_s),
    }
    if options.write_readme and len(outcomes) == options.runs:
        keep(BLOCK, as_result(outcomes, about), as_markdown)
    print(as_table(outcomes))
    print()
    for name, value in {**about, **summary(outcomes)}.items():
        print(f"{name}: {value}")
    for reason in sorted({reason for outcome in outcomes for reason in outcome.skipped}):
        print(f"skipped: {reason}")
    failed = [str(outcome.plan.seed) for outcome in outcomes if outcome.violations]
    if failed:
        print(f"FAILED, seeds: {' '.join(failed)}")


def _command_line(options: argparse.Namespace) -> str:
    return f"python -m bench.chaos --seed {options.seed} --runs {options.runs}" + (
        f" --jobs {options.jobs}" if options.jobs > 1 else ""
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.chaos",
        description="Inject faults at random moments and check the invariants.",
    )
    parser.add_argument("--seed", type=int, default=1, help="seed of the first run (default: 1)")
    parser.add_argument("--runs", type=_positive, default=40, help="number of runs (default: 40)")
    parser.add_argument("--jobs", type=_positive, default=1, help="runs at once (default: 1)")
    parser.add_argument(
        "--write-readme",
        action="store_true",
        help="write the result into docs/reliability.md and bench/results",
    )
    parser.add_argument("--verbose", action="store_true", help="print each run when it ends")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


if __name__ == "__main__":
    sys.exit(main())
