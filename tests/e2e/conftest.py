"""The real CLI, the stand-in for its API, and a clean world for each test.

The tests are skipped with a reason if npm or Node is missing. `AGENT_DISPATCH_E2E=require` turns
the skip into a failure.
"""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.claude_cli import installed_claude
from tests.e2e.messages_api import MessagesApi, script, serve_messages_api
from tests.e2e.network import Network, open_network
from tests.e2e.world import Witness, World
from tests.npm import CannotInstallError, cache_folder

_NETWORK = pytest.StashKey[Network]()


def pytest_report_collectionfinish(config: pytest.Config, items: list[pytest.Item]) -> list[str]:
    if not any(item.get_closest_marker("e2e") for item in items):
        return []
    return [f"e2e: the API's stand-in listens on {_network(config).description}"]


def _network(config: pytest.Config) -> Network:
    """The network of this test session, created on first use."""
    if _NETWORK not in config.stash:
        stack = ExitStack()
        config.stash[_NETWORK] = stack.enter_context(open_network())
        config.add_cleanup(stack.close)
    return config.stash[_NETWORK]


@pytest.fixture(scope="session")
def network(pytestconfig: pytest.Config) -> Network:
    return _network(pytestconfig)


@pytest.fixture(scope="session")
def claude_program() -> Path:
    try:
        return installed_claude(cache_folder(os.environ))
    except CannotInstallError as error:
        if os.environ.get("AGENT_DISPATCH_E2E") == "require":
            pytest.fail(f"the real Claude Code CLI is required here: {error}", pytrace=False)
        pytest.skip(f"no Claude Code CLI: {error}")


@pytest.fixture
async def api(network: Network) -> AsyncIterator[MessagesApi]:
    async with serve_messages_api(network.listen(), script()) as api:
        yield api


@pytest.fixture
async def world(
    tmp_path: Path, claude_program: Path, network: Network, api: MessagesApi
) -> AsyncIterator[World]:
    world = World(tmp_path, claude=claude_program, place=network.place, api_url=api.url)
    yield world
    world.sweep()


@pytest.fixture
def witness(tmp_path: Path) -> Iterator[Witness]:
    witness = Witness(tmp_path / "alive")
    yield witness
    witness.close()
