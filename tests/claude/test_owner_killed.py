import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
import trio

from agent_dispatch.claude.launcher import GUARD_PROGRAM
from agent_dispatch.run.background import WORKER_PROGRAM
from tests.claude.trees import KINDS, Tree


class Owner(NamedTuple):
    """A process that owns a fork server and one guarded tree, which runs."""

    process: trio.Process
    tree: Tree

    @property
    def fork_server(self) -> int:
        (pid,) = children_of(self.process.pid)
        return pid

    @property
    def guard(self) -> int:
        leader = min(self.tree.living())
        (pid,) = (pid for pid in children_of(self.fork_server) if leader in children_of(pid))
        return pid

    async def gone(self) -> None:
        """Wait until no process of the tree is left; the owner has been killed."""
        await self.tree.gone(3)
        await self.process.wait()


StartOwner = Callable[..., Awaitable[Owner]]


@pytest.fixture
def start_owner() -> Iterator[StartOwner]:
    """Starts owners, and kills those that a failed test left: their trees end with them."""
    owners: list[trio.Process] = []

    async def start(kind: str, way: str = "forked") -> Owner:
        tree = Tree(KINDS[kind])
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "tests.claude.owner", msgspec.json.encode(tree.command), way],
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            cwd=Path(__file__).parents[2],
        )
        owners.append(process)
        assert process.stdout is not None
        with trio.fail_after(20):
            assert await process.stdout.receive_some(100)
        return Owner(process, tree)

    yield start
    for owner in owners:
        if owner.poll() is None:
            owner.kill()


def children_of(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def descriptors_of(pid: int) -> set[str]:
    return {os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()}


@pytest.mark.parametrize("way", ["forked", "slow"])
@pytest.mark.parametrize("kind", KINDS)
async def test_the_tree_ends_when_its_owner_is_killed(
    start_owner: StartOwner, kind: str, way: str
) -> None:
    owner = await start_owner(kind, way)
    owner.process.kill()
    await owner.gone()


@pytest.mark.parametrize("kind", ["plain", "daemon"])
async def test_the_tree_ends_when_its_owners_whole_group_is_killed(
    start_owner: StartOwner, kind: str
) -> None:
    owner = await start_owner(kind)
    os.killpg(owner.process.pid, signal.SIGKILL)
    await owner.gone()


async def test_the_leader_dies_when_owner_and_guard_are_killed_at_once(
    start_owner: StartOwner,
) -> None:
    owner = await start_owner("ignoring")
    for pid in (owner.process.pid, owner.fork_server, owner.guard):
        os.kill(pid, signal.SIGKILL)
    await owner.gone()


async def test_the_fork_server_ignores_signals_and_ends_with_its_owner(
    start_owner: StartOwner,
) -> None:
    owner = await start_owner("plain")
    fork_server = owner.fork_server
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(fork_server, signum)
    assert owner.fork_server == fork_server
    assert os.getsid(fork_server) == fork_server
    watch = os.pidfd_open(fork_server)
    owner.process.kill()
    with trio.fail_after(5):
        await trio.lowlevel.wait_readable(watch)
    os.close(watch)
    await owner.gone()


async def test_the_fork_server_holds_none_of_its_owners_descriptors(
    start_owner: StartOwner,
) -> None:
    owner = await start_owner("plain")
    links = descriptors_of(owner.fork_server) - {"/dev/null"}
    # One to its owner, and one to each guard.
    assert {link.partition(":")[0] for link in links} == {"socket"}
    assert not links & descriptors_of(owner.process.pid)
    owner.process.kill()
    await owner.gone()


async def test_a_signal_to_the_guard_ends_its_tree(start_owner: StartOwner) -> None:
    owner = await start_owner("setsid")
    os.kill(owner.guard, signal.SIGTERM)
    await owner.tree.gone(3)
    owner.process.kill()
    await owner.process.wait()


@pytest.mark.parametrize("sent", ["", '{"program": "['])
@pytest.mark.parametrize("program", [GUARD_PROGRAM, WORKER_PROGRAM], ids=["guard", "worker"])
def test_a_start_whose_owner_dies_before_the_whole_request_ends_quietly(
    program: tuple[str, ...], sent: str
) -> None:
    done = subprocess.run(
        [*program, "5"], input=sent, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
