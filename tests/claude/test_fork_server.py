import subprocess
import sys
from pathlib import Path

import pytest

# Each runs in its own process, because a fork server is forked before the first thread.
ASKED = """
import os, sys
SLOW = "import os, sys; os.write(int(sys.argv[1]), b'slow')"
from agent_dispatch.claude.fork_server import start_fork_server
def die(request, fds):
    raise SystemExit
def greet(request, fds):
    os.write(fds[0], request["word"].encode() + b" %d" % os.getpid())
    os.read(fds[1], 1)
fork_server = start_fork_server({"die": die, "greet": greet})
import trio
from agent_dispatch.claude.launcher import Launcher
async def main():
    work, finish = os.pipe()
    async def ask(kind):
        read, write = os.pipe()
        launcher = Launcher(fork_server, kind, [sys.executable, "-c", SLOW])
        await launcher.start({"word": "forked"}, [write, work])
        os.close(write)
        return (await trio.lowlevel.FdStream(read).receive_some(100)).decode()
"""
AT_ONCE = f"""{ASKED}
    answers = [await ask("greet") for _ in range(3)]
    print({{answer.split()[0] for answer in answers}}, len(set(answers)))
trio.run(main)
"""
DYING = f"""{ASKED}
    print(repr(await ask("die")), (await ask("greet")).split()[0])
trio.run(main)
"""
GONE = f"""{ASKED}
    fork_server.close()
    print(await ask("greet"))
trio.run(main)
"""
KILLED_EARLY = """
import os, signal, sys
from agent_dispatch.claude import guard
from agent_dispatch.claude.fork_server import start_fork_server
def run(request, fds):
    guard.os.execve = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    guard.run(request, fds)
fork_server = start_fork_server({"guard": run})
import trio
from agent_dispatch.core.command import MARKER_VARIABLE, Command
from agent_dispatch.claude.child import open_child
from agent_dispatch.claude.launcher import Launcher
async def main():
    command = Command(("/bin/true",), "/", {MARKER_VARIABLE: "killed early"})
    async with open_child(Launcher(fork_server), command, on_stdout=print) as child:
        await child.wait_until(lambda: child.ended)
    print(child.exit_code)
trio.run(main)
"""
THREADED = """
import threading
from agent_dispatch.claude.fork_server import start_fork_server
stop = threading.Event()
threading.Thread(target=stop.wait).start()
try:
    start_fork_server()
except RuntimeError as error:
    print(error)
stop.set()
"""


def run(script: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    return done.stdout


def test_each_request_gets_a_process_of_its_own() -> None:
    assert run(AT_ONCE) == "{'forked'} 3\n"


def test_a_process_that_dies_causes_eof_and_delays_no_other() -> None:
    assert run(DYING) == "'' forked\n"


def test_without_a_server_a_new_python_is_started() -> None:
    assert run(GONE) == "slow\n"


@pytest.mark.skipif(sys.platform != "linux", reason="needs SIGKILL between fork and exec")
def test_an_agent_that_is_killed_before_its_program_runs_is_reported() -> None:
    assert run(KILLED_EARLY) == "-9\n"


def test_a_process_with_threads_forks_no_fork_server() -> None:
    assert "before the first thread" in run(THREADED)


@pytest.mark.parametrize("name", ["claude.guard", "claude.fork_server", "worker"])
def test_forked_programs_need_the_standard_library_only(name: str) -> None:
    script = (
        f"import sys, agent_dispatch.{name};"
        "print([m for m in ('trio', 'msgspec', 'mcp', 'asyncio') if m in sys.modules])"
    )
    assert run(script) == "[]\n"
