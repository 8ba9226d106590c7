"""What a dispatch costs over the bare child, and what the server and the commands cost alone.

    uv run python -m bench.overhead                          this product and its floors
    uv run python -m bench.overhead --against PROGRAM        beside the published predecessor
    uv run python -m bench.overhead --real                   the real Claude Code CLI too

The child is a small program that answers at once, so what is measured is what is added. With
`--real` the real CLI talks to a stand-in for its API on loopback.
"""

import argparse
import math
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from bench import measures
from bench.cpu import why_not_counted
from bench.products import Product, build_standin, ours, predecessor
from bench.report import Row, as_json, as_table
from tests.e2e.claude_cli import VERSION, cache_folder, installed_claude
from tests.e2e.network import open_network
from tests.e2e.world import World

_SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and say by the exit status whether the targets hold."""
    options = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="agent-dispatch-bench-") as scratch:
        root = Path(scratch)
        folder, standin = build_standin(root)
        environ = {
            "PATH": f"{folder}:{_SYSTEM_PATH}",
            "HOME": scratch,
            "LANG": "C.UTF-8",
            "TMPDIR": scratch,
        }
        products = [ours(root, environ)]
        if options.against:
            products.append(predecessor(options.against, root, environ))
        rows = _measure(products, options.rounds, options.only)
        if options.real and (not options.only or "m8" in options.only):
            rows += _measure_real(root / "real", options)
    why_not = why_not_counted()
    if why_not is not None:
        rows = [row for row in rows if not math.isnan(row.ours)]
    about: dict[str, object] = {
        "standin": standin,
        "CPU time": f"not counted: {why_not}" if why_not else "by the kernel's task clock",
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        "rounds": options.rounds,
    }
    if options.json:
        print(as_json(rows, about))
    else:
        print(as_table(rows))
        if any(row.met is None for row in rows):
            print("\n-: the target is a share of the predecessor's figure; see --against")
        print("\n" + "; ".join(f"{name}: {value}" for name, value in about.items()))
    missed = [row for row in rows if row.met is False]
    return 1 if options.strict and missed else 0


def _measure(products: Sequence[Product], rounds: int, only: Sequence[str]) -> list[Row]:
    few = max(3, rounds // 20)
    rows: list[Row] = []
    if not only or "m1" in only:
        _say("dispatches of an instant child")
        rows += measures.dispatch_overhead(products, rounds)
        rows += measures.watched_dispatch(products, few)
    if not only or {"m1", "m2"} & set(only):
        _say("servers from start to end")
        rows += measures.server_life(products, few)
    if not only or "m3" in only:
        _say("list_agents")
        rows += measures.list_agents(products, rounds)
    if not only or "m7" in only:
        _say("commands")
        rows += measures.commands(products, few)
    wanted = [row for row in rows if not only or row.group in only]
    return sorted(wanted, key=lambda row: row.group)


def _measure_real(root: Path, options: argparse.Namespace) -> list[Row]:
    _say(f"dispatches of Claude Code {VERSION}")
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
    parser.add_argument(
        "--rounds", type=int, default=200, help="samples of the cheap figures (default: 200)"
    )
    parser.add_argument(
        "--against",
        metavar="PROGRAM",
        default="",
        help="the predecessor (agent-dispatch 0.16.0 from the package index, in an environment of"
        " its own): its console script, or the interpreter it is installed for",
    )
    parser.add_argument("--real", action="store_true", help="measure the real CLI too (m8)")
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        choices=["m1", "m2", "m3", "m7", "m8"],
        help="some of the rows (default: all; m8 needs --real)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--strict", action="store_true", help="exit 1 when a target is missed")
    return parser


def _say(what: str) -> None:
    print(f"measuring {what} ...", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
