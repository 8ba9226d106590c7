import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import msgspec
import pytest
import trio

from tests.claude.trees import KINDS, Tree

StartOwner = Callable[[Tree, str], Awaitable[trio.Process]]


@pytest.fixture
def start_owner() -> Iterator[StartOwner]:
    """Starts owners, and kills those that a failed test left: their trees end with them."""
    owners: list[trio.Process] = []

    async def start(tree: Tree, way: str) -> trio.Process:
        owner = await trio.lowlevel.open_process(
            [sys.executable, "-m", "tests.claude.owner", msgspec.json.encode(tree.command), way],
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            cwd=Path(__file__).parents[2],
        )
        owners.append(owner)
        return owner

    yield start
    for owner in owners:
        if owner.poll() is None:
            owner.kill()


async def up(owner: trio.Process) -> None:
    assert owner.stdout is not None
    with trio.fail_after(20):
        assert await owner.stdout.receive_some(100)


def children_of(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def descriptors_of(pid: int) -> set[str]:
    return {os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()}


@pytest.mark.parametrize("way", ["forked", "slow"])
@pytest.mark.parametrize("kind", KINDS)
async def test_the_tree_ends_when_its_owner_is_killed(
    start_owner: StartOwner, kind: str, way: str
) -> None:
    tree = Tree(KINDS[kind])
    owner = await start_owner(tree, way)
    await up(owner)
    owner.send_signal(signal.SIGKILL)
    await tree.gone(3)
    await owner.wait()


@pytest.mark.parametrize("kind", ["plain", "daemon"])
async def test_the_tree_ends_when_its_owners_whole_group_is_killed(
    start_owner: StartOwner, kind: str
) -> None:
    tree = Tree(KINDS[kind])
    owner = await start_owner(tree, "forked")
    await up(owner)
    os.killpg(owner.pid, signal.SIGKILL)
    await tree.gone(3)
    await owner.wait()


async def test_the_leader_dies_when_owner_and_guard_are_killed_at_once(
    start_owner: StartOwner,
) -> None:
    tree = Tree(KINDS["ignoring"])
    owner = await start_owner(tree, "forked")
    await up(owner)
    (leader,) = tree.living()
    (fork_server,) = children_of(owner.pid)
    (the_guard,) = (pid for pid in children_of(fork_server) if leader in children_of(pid))
    for pid in (owner.pid, fork_server, the_guard):
        os.kill(pid, signal.SIGKILL)
    await tree.gone(3)
    await owner.wait()


async def test_the_fork_server_ignores_signals_and_ends_with_its_owner(
    start_owner: StartOwner,
) -> None:
    tree = Tree(KINDS["plain"])
    owner = await start_owner(tree, "forked")
    await up(owner)
    (fork_server,) = children_of(owner.pid)
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(fork_server, signum)
    assert children_of(owner.pid) == [fork_server]
    assert os.getsid(fork_server) == fork_server
    watch = os.pidfd_open(fork_server)
    owner.send_signal(signal.SIGKILL)
    with trio.fail_after(5):
        await trio.lowlevel.wait_readable(watch)
    os.close(watch)
    await tree.gone(3)
    await owner.wait()


async def test_the_fork_server_holds_none_of_its_owners_descriptors(
    start_owner: StartOwner,
) -> None:
    tree = Tree(KINDS["plain"])
    owner = await start_owner(tree, "forked")
    await up(owner)
    (fork_server,) = children_of(owner.pid)
    links = descriptors_of(fork_server) - {"/dev/null"}
    # One to its owner, and one to each guard.
    assert {link.partition(":")[0] for link in links} == {"socket"}
    assert not links & descriptors_of(owner.pid)
    owner.send_signal(signal.SIGKILL)
    await tree.gone(3)
    await owner.wait()


async def test_a_signal_to_the_guard_ends_its_tree(start_owner: StartOwner) -> None:
    tree = Tree(KINDS["setsid"])
    owner = await start_owner(tree, "forked")
    await up(owner)
    (fork_server,) = children_of(owner.pid)
    (leader, _) = sorted(tree.living())
    (the_guard,) = (pid for pid in children_of(fork_server) if leader in children_of(pid))
    os.kill(the_guard, signal.SIGTERM)
    await tree.gone(3)
    owner.send_signal(signal.SIGKILL)
    await owner.wait()
