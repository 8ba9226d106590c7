"""The real Claude Code CLI, talking to a stand-in for its API on loopback."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.products import Product, ours, predecessor
from tests.e2e.claude_cli import VERSION, cache_folder, installed_claude
from tests.e2e.network import Place, open_network
from tests.e2e.world import World

__all__ = ["VERSION", "RealWorld", "open_real_world"]


@dataclass(frozen=True, kw_only=True)
class RealWorld:
    """Products whose agents are the real CLI."""

    products: list[Product]
    place: Place
    """The network that they have to be started in."""


@contextmanager
def open_real_world(root: Path, against: str, claude: Path | None = None) -> Iterator[RealWorld]:
    """Serve the CLI's API for as long as the block runs.

    Args:
        root: A new folder for everything.
        against: The predecessor's program; empty: without it.
        claude: The CLI; None: the one of the tests, which is installed if need be.

    Raises:
        CannotInstallError: The CLI is not there and cannot be fetched.
    """
    root.mkdir()
    if claude is None:
        claude = installed_claude(cache_folder(os.environ))
    with ExitStack() as stack:
        network = stack.enter_context(open_network())
        listener = stack.enter_context(network.listen())
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        fd = listener.fileno()
        stub = subprocess.Popen([sys.executable, "-m", "bench.stub_api", str(fd)], pass_fds=[fd])
        stack.callback(stub.wait)
        stack.callback(stub.terminate)
        world = World(root, claude=claude, place=network.place, api_url=url)
        products = [ours(root, world.environ)]
        if against:
            products.append(predecessor(against, root, world.environ))
        yield RealWorld(products=products, place=network.place)
