"""What a dispatch costs over the bare child, and what the server and the commands cost alone.

    uv run python -m bench.overhead                          this product and its floors
    uv run python -m bench.overhead --against PROGRAM        beside the published predecessor
    uv run python -m bench.overhead --real                   the real Claude Code CLI too

The child is a small program that answers at once, so what is measured is what is added. With
`--real` the real CLI talks to a stand-in for its API on loopback.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from bench import measures
from bench.command import add_options, open_workshop, say, show
from bench.products import Product, ours, predecessor
from bench.report import Row
from tests.e2e.claude_cli import VERSION, cache_folder, installed_claude
from tests.e2e.network import open_network
from tests.e2e.world import World


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
    root.mkdir()
    with ExitStack() as stack:
        network = stack.enter_context(open_network())
        listener = stack.enter_context(network.listen())
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        fd = listener.fileno()
        stub = subprocess.Popen([sys.executable, "-m", "bench.stub_api", str(fd)], pass_fds=[fd])
        stack.callback(stub.wait)
        stack.callback(stub.terminate)
        claude = installed_claude(cache_folder(os.environ))
        world = World(root, claude=claude, place=network.place, api_url=url)
        products = [ours(root, world.environ)]
        if options.against:
            products.append(predecessor(options.against, root, world.environ))
        rounds = max(3, options.rounds // 40)
        place = network.place
        return measures.real_claude(products, rounds, prefix=place.prefix, pass_fds=place.pass_fds)


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
