"""What a dispatch costs over the bare child, and what the server and the commands cost alone.

    uv run python -m bench.overhead                          this product and its floors
    uv run python -m bench.overhead --against PROGRAM        beside the published predecessor
    uv run python -m bench.overhead --real                   the real Claude Code CLI too

The child is a small program that answers at once, so what is measured is what is added. With
`--real` the real CLI talks to a stand-in for its API on loopback.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bench import measures
from bench.command import add_options, open_workshop, say, show
from bench.products import Product
from bench.real import VERSION, open_real_world
from bench.real_dispatches import real_claude
from bench.report import Row


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and say by the exit status whether the targets hold."""
    options = _parser().parse_args(arguments)
    with open_workshop(options) as workshop:
        rows = _measure(workshop.products("cheap"), options.rounds, options.only)
        if options.real and (not options.only or "m8" in options.only):
            rows += _measure_real(workshop.root / "real", options)
        return show(rows, workshop, options)


def _measure(products: Sequence[Product], rounds: int, only: Sequence[str]) -> list[Row]:
    few = max(3, rounds // 20)
    rows: list[Row] = []
    if not only or "m1" in only:
        say("dispatches of an instant child")
        rows += measures.dispatch_overhead(products, rounds)
        rows += measures.watched_dispatch(products, few)
    if not only or {"m1", "m2"} & set(only):
        say("servers from start to end")
        rows += measures.server_life(products, few)
    if not only or "m3" in only:
        say("list_agents")
        rows += measures.list_agents(products, rounds)
    if not only or "m7" in only:
        say("commands")
        rows += measures.commands(products, few)
    wanted = [row for row in rows if not only or row.group in only]
    return sorted(wanted, key=lambda row: row.group)


def _measure_real(root: Path, options: argparse.Namespace) -> list[Row]:
    say(f"dispatches of Claude Code {VERSION}")
    rounds = max(3, options.rounds // 40)
    with open_real_world(root, options.against) as world:
        return real_claude(world.products, rounds, world.place)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.overhead", description="What a dispatch costs over the bare child."
    )
    add_options(parser, rounds=200, groups=["m1", "m2", "m3", "m7", "m8"])
    parser.add_argument(
        "--real", action="store_true", help="measure the real CLI too (m8, only with this)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
