"""The farewell: what a guard writes to its child before it ends it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import trio

from agent_dispatch.claude.child import open_child
from agent_dispatch.claude.launcher import Launcher
from agent_dispatch.core.command import MARKER_VARIABLE, Command
from tests.remote.machine import wait_for

FAREWELL = '\n{"t":"bye"}\n'


def command(*argv: str) -> Command:
    return Command(argv, "/", {"PATH": "/usr/bin:/bin", MARKER_VARIABLE: "test-farewell"})


async def test_a_child_reads_its_farewell_and_eof_and_exits_by_itself(
    launcher: Launcher,
) -> None:
    heard = bytearray()
    cat = command("/bin/cat")
    with trio.fail_after(30):
        async with open_child(launcher, cat, on_stdout=heard.extend, farewell=FAREWELL) as child:
            await child.send(b"half a li")
            await child.wait_until(lambda: b"half" in heard)
    assert heard == b"half a li" + FAREWELL.encode()
    assert child.exit_code == 0


async def test_a_child_that_ignores_its_farewell_is_ended(launcher: Launcher) -> None:
    sleeper = command("/bin/sleep", "600")
    with trio.fail_after(30):
        async with open_child(
            launcher, sleeper, on_stdout=lambda chunk: None, farewell=FAREWELL
        ) as child:
            await child.wait_until(lambda: child.pid is not None)
            with trio.move_on_after(0.3):
                # Fill the pipe, so that there is no room for the farewell.
                await child.send(b"x" * 10_000_000)
    assert child.exit_code == -signal.SIGTERM


OWNER = """
import sys, trio
from agent_dispatch.claude.child import open_child
from agent_dispatch.claude.fork_server import start_fork_server
from agent_dispatch.claude.launcher import Launcher
from agent_dispatch.core.command import MARKER_VARIABLE, Command

async def main():
    command = Command(
        ("/bin/sh", "-c", f"cat >{sys.argv[1]}"), "/", {MARKER_VARIABLE: "test-farewell"}
    )
    launcher = Launcher(fork_server)
    async with open_child(
        launcher, command, on_stdout=lambda chunk: None, farewell="\\nbye\\n"
    ) as child:
        await child.send(b"started")
        await trio.sleep_forever()

fork_server = start_fork_server()
trio.run(main)
"""


def test_the_guard_writes_the_farewell_for_an_owner_that_was_killed(tmp_path: Path) -> None:
    heard = tmp_path / "heard"
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(heard)])
    wait_for(lambda: heard.exists() and b"started" in heard.read_bytes())
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    wait_for(lambda: heard.read_bytes() == b"started\nbye\n")
