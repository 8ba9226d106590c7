"""A stopped fork server (SIGSTOP) delays its requests, but not for ever."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from agent_dispatch.claude.child import ChildStartError, open_child
from agent_dispatch.claude.fork_server import ForkServer
from agent_dispatch.claude.launcher import Launcher
from agent_dispatch.core.command import Command
from tests.claude.trees import Tree

LARGE = "x" * 92_000
"""A few of these fill the socket of a fork server."""

STOPPED = """
import json, os, signal, sys
from agent_dispatch.claude.process_tree import living_descendants
from agent_dispatch.claude.fork_server import start_fork_server
fork_server = start_fork_server()
(fork_server_pid,) = living_descendants(os.getpid())
os.kill(fork_server_pid, signal.SIGSTOP)
os.waitpid(fork_server_pid, os.WUNTRACED)
import trio
from trio.testing import wait_all_tasks_blocked
from agent_dispatch.run.open_service import open_service
from agent_dispatch.model.dispatch import DispatchRequest
results = []
async def one(service, number):
    request = DispatchRequest(agent="infra", task=f"go {number}", timeout_s=1)
    results.append(await service.dispatch(request))
async def main():
    claude = json.loads(sys.argv[1])
    async with open_service(environ=os.environ, fork_server=fork_server, claude=claude) as service:
        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(one, service, number)
        await one(service, "on")
trio.run(main)
for result in results:
    print(result.success, result.error_type, result.error)
pid, status = os.waitpid(fork_server_pid, 0)
print(os.waitstatus_to_exitcode(status))
"""


@pytest.fixture
def unread() -> Iterator[ForkServer]:
    """A fork server that reads nothing, like a stopped one."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    fork_server = ForkServer(ours)
    yield fork_server
    fork_server.close()
    theirs.close()


def large(tree: Tree) -> Command:
    return msgspec.structs.replace(tree.command, env={**tree.command.env, "PADDING": LARGE})


def fill(fork_server: ForkServer) -> None:
    """Leave no room for a request."""
    assert fork_server.sock is not None
    try:
        while True:
            fork_server.sock.send(b"x" * 4096)
    except BlockingIOError:
        pass


async def run(launcher: Launcher, tree: Tree) -> bytes:
    output = bytearray()
    async with open_child(launcher, large(tree), on_stdout=output.extend) as child:
        await child.wait_until(lambda: child.exited)
    return bytes(output)


async def test_a_request_that_a_stopped_fork_server_does_not_take_is_started_by_a_new_python(
    unread: ForkServer,
) -> None:
    fill(unread)
    launcher = Launcher(unread)
    with trio.fail_after(30):
        assert await run(launcher, Tree("say('up')")) == b"up\n"
    assert unread.sock is None
    with trio.fail_after(10):
        assert await run(launcher, Tree("say('again')")) == b"again\n"


async def test_a_half_sent_request_is_started_once_by_a_new_python(
    unread: ForkServer,
) -> None:
    launcher, outputs = Launcher(unread), []

    async def one() -> None:
        # Nobody answers the requests that were sent as a whole.
        with trio.move_on_after(5), suppress(ChildStartError):
            outputs.append(await run(launcher, Tree("say('up')")))

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(one)
    assert outputs
    assert set(outputs) == {b"up\n"}
    assert unread.sock is None


async def test_a_fork_server_may_be_given_up_between_two_looks_at_it(
    autojump_clock: MockClock,
) -> None:
    ours, theirs = socket.socketpair()

    class GivenUpMeanwhile(ForkServer):
        def is_running(self) -> bool:
            """Another run gives it up while this one looks whether it runs."""
            self.give_up()
            return True

    with ours, theirs:
        ours.setblocking(False)
        fork_server = GivenUpMeanwhile(ours)
        fill(fork_server)
        request, fds = {"program": "[]", "marker": "none"}, [0]
        launcher = Launcher(fork_server, program=("true",))
        await launcher.start(request, fds)
    assert fork_server.sock is None


@pytest.mark.parametrize("room", ["none", "for some of it"])
async def test_a_cancellation_need_not_wait_for_a_stopped_fork_server(
    unread: ForkServer, room: str
) -> None:
    if room == "none":
        fill(unread)
    launcher = Launcher(unread)

    async def one() -> None:
        await run(launcher, Tree("say('up'); stay()"))

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(one)
            await wait_all_tasks_blocked(0.05)
            nursery.cancel_scope.cancel()


async def test_a_request_without_an_answer_is_a_failed_start(unread: ForkServer) -> None:
    tree = Tree("say('up'); stay()")
    with trio.fail_after(20), pytest.raises(ChildStartError):
        async with open_child(Launcher(unread), tree.command, on_stdout=print):
            await trio.lowlevel.checkpoint()
    assert unread.sock is None


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
async def test_a_fork_server_that_runs_but_is_slow_is_waited_for(
    autojump_clock: MockClock,
) -> None:
    ours, theirs = socket.socketpair()
    # This process stands for a server that gets no processor time.
    slow = ForkServer(ours, os.getpid())
    launcher, began = Launcher(slow), trio.current_time()

    async def late() -> None:
        await trio.sleep_until(began + 20)

    assert await launcher.is_ready(late)
    assert slow.sock is not None
    assert not await launcher.is_ready(trio.sleep_forever)
    assert slow.sock is None
    theirs.close()


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs pidfd_open(2)")
def test_dispatches_end_at_their_deadline_and_the_stopped_fork_server_is_replaced(
    tmp_path: Path,
) -> None:
    (tmp_path / "agents.toml").write_text(f'[agents.infra]\ndirectory = "{tmp_path}"\n')
    claude = (
        "import json, sys; sys.stdin.readline(); print(json.dumps(dict(type='result',"
        " subtype='success', is_error=False, num_turns=1, result='fine',"
        " session_id='11111111-2222-4333-8444-555555555555')))"
    )
    command = [sys.executable, "-I", "-S", "-c", claude]
    done = subprocess.run(
        [sys.executable, "-c", STOPPED, json.dumps(command)],
        env={
            **os.environ,
            "AGENT_DISPATCH_CONFIG": str(tmp_path / "agents.toml"),
            "PADDING": LARGE,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    *results, fork_server = done.stdout.splitlines()
    assert len(results) == 6
    assert results[-1].startswith("True"), results
    # The requests that lay unread in its socket failed to start, and say so.
    assert all(line.startswith(("True", "False cli_error No process")) for line in results)
    assert fork_server == "-9"
