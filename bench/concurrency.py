"""What happens at the limit on concurrent runs, and what many dispatches at once cost.

    uv run python -m bench.concurrency                       this product alone
    uv run python -m bench.concurrency --against PROGRAM     beside the published predecessor
    uv run python -m bench.concurrency --quick               a look at it, in less than 20 s
    uv run python -m bench.concurrency --real                a dialogue of the real CLI too

The agents are small programs that work for a while and count themselves. `--results FOLDER` keeps
the figures as files there, and draws them (`uv run --group bench python -m bench.concurrency …`).
"""

import argparse
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench.command import Workshop, about_run, add_options, open_workshop, say, show
from bench.crowd import Crowd, crowds, rows_of_crowds, rows_of_streams, streams
from bench.fanout import MANY, TOGETHER, Load, Point, fan_out, rows_of
from bench.large_answer import large_answer
from bench.real import VERSION, open_real_world
from bench.report import Row, as_json
from bench.turns import second_turns

LIMITS, CROWD, STREAMS, ANSWER, DIALOGUE = GROUPS = (
    "limits",
    "crowd",
    "streams",
    "answer",
    "dialogue",
)
_OPEN_FILES_EACH = 12
"""Descriptors that a dispatch may need in the server, with room."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much is measured."""

    loads: tuple[Load, ...]
    crowds: tuple[int, ...]
    streams: int
    stream_s: float
    answer_mib: int


@dataclass(kw_only=True)
class Found:
    """What was measured."""

    rows: list[Row] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)
    crowds: list[Crowd] = field(default_factory=list)


Keep = Callable[[Found, dict[str, object]], None]
"""Keeps what was found, with what is known of the run."""


def _filling(limit: int) -> Load:
    """Twice what the limit allows, at work for long enough that the first half can start."""
    return Load(limit=limit, dispatches=2 * limit, seconds=max(0.25, limit / 50))


FULL = Plan(
    loads=(
        *(_filling(limit) for limit in (1, 2, 5, 10, 20, 50, 100)),
        *(Load(limit=limit, dispatches=MANY, seconds=1) for limit in (5, 20, 50, 100)),
        Load(limit=20, dispatches=MANY, seconds=1, tool=TOGETHER),
    ),
    crowds=(1, 5, 20, 50, 100),
    streams=1000,
    stream_s=30,
    answer_mib=64,
)
QUICK = Plan(
    loads=(_filling(2), _filling(10)), crowds=(1, 10), streams=40, stream_s=1, answer_mib=4
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and say by the exit status whether the targets hold."""
    options = _parser().parse_args(arguments)
    with open_workshop(options) as workshop:
        keep = _keeping(options)
        load_before = os.getloadavg()[0]
        found = _measure(workshop, QUICK if options.quick else FULL, options)
        if keep is not None:
            about = about_run(workshop, options)
            about["load"] = f"{load_before:.1f} before, {os.getloadavg()[0]:.1f} after"
            keep(found, _told(options) | _versions(workshop) | about)
        return show(found.rows, workshop, options)


def _keeping(options: argparse.Namespace) -> Keep | None:
    """What keeps the results, if they are to be kept; asked for before it takes minutes."""
    if not options.results:
        return None
    try:
        from bench.concurrency_plot import draw
    except ModuleNotFoundError as error:
        sys.exit(f"{error}: run this with `uv run --group bench python -m bench.concurrency …`")
    folder = Path(options.results)
    folder.mkdir(parents=True, exist_ok=True)

    def keep(found: Found, about: dict[str, object]) -> None:
        told = {
            "loads": [asdict(point) | {"load": str(point.load)} for point in found.points],
            "crowds": [asdict(crowd) for crowd in found.crowds],
        }
        (folder / "concurrency.json").write_text(as_json(found.rows, about | told) + "\n")
        draw(folder / "concurrency.svg", found.points, found.crowds, about)

    return keep


def _told(options: argparse.Namespace) -> dict[str, object]:
    """The command, without the places of this machine."""
    words = ["python -m bench.concurrency"]
    words += ["--against PROGRAM"] if options.against else []
    words += [f"--{name}" for name in ("quick", "real") if getattr(options, name)]
    words += ["--only", *options.only] if options.only else []
    return {"command": " ".join(words)}


def _versions(workshop: Workshop) -> dict[str, object]:
    versions: dict[str, object] = {}
    for product in workshop.products("versions"):
        said = subprocess.run(
            product.command("--version"), env=product.environ, stdout=subprocess.PIPE, check=True
        )
        versions[product.name] = said.stdout.decode().split()[-1]
    return versions


def _measure(workshop: Workshop, plan: Plan, options: argparse.Namespace) -> Found:
    wanted = set(options.only or GROUPS)
    found = Found()
    if LIMITS in wanted:
        found.points = fan_out(workshop, plan.loads)
        found.rows += rows_of(found.points)
    if CROWD in wanted:
        say(f"{max(plan.crowds)} dispatches at once")
        products = workshop.products("crowd", limit=max(plan.crowds))
        stages = workshop.root / "crowd" / "stages"
        found.crowds = crowds(products, stages, workshop.standin, plan.crowds)
        found.rows += rows_of_crowds(found.crowds)
    if STREAMS in wanted:
        found.rows += _measure_streams(workshop, plan)
    if ANSWER in wanted:
        say(f"an answer of {plan.answer_mib} MiB")
        products = workshop.products("answer")
        found.rows += large_answer(products, workshop.root / "answer" / "stages", plan.answer_mib)
    if options.real and DIALOGUE in wanted:
        say(f"conversations of Claude Code {VERSION}")
        with open_real_world(workshop.root / "real", options.against) as world:
            found.rows += second_turns(world, options.rounds)
    return found


def _measure_streams(workshop: Workshop, plan: Plan) -> list[Row]:
    needed, hard = plan.streams * _OPEN_FILES_EACH, resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < needed:
        say(f"no {plan.streams} dispatches: they need `ulimit -Hn {needed}`, and it is {hard}")
        return []
    say(f"{plan.streams} dispatches that report; of the predecessor a handful would run at once")
    product = workshop.products("streams", limit=plan.streams)[0]
    stage = workshop.root / "streams" / "stage"
    return rows_of_streams(streams(product, stage, workshop.standin, plan.streams, plan.stream_s))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.concurrency",
        description="What happens at the limit on concurrent runs, and what many at once cost.",
    )
    add_options(parser, rounds=5, groups=GROUPS)
    parser.add_argument(
        "--results", metavar="FOLDER", default="", help="keep concurrency.json and .svg there"
    )
    parser.add_argument("--quick", action="store_true", help="less of everything, for a look at it")
    parser.add_argument(
        "--real", action="store_true", help="conversations of the real CLI too (only with this)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
