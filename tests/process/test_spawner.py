import os
import subprocess
import sys
from pathlib import Path

import pytest

# Each runs in a process of its own: a spawner is forked before the first thread.
STILLBORN = """
import os
from agent_dispatch.process.spawner import start_spawner
def die():
    raise SystemExit
spawner = start_spawner(die)
import trio
from agent_dispatch.process.launcher import Launcher
async def main():
    launcher = Launcher(spawner)
    for _ in range(3):
        read, write = os.pipe()
        await launcher.start({}, [write])
        os.close(write)
        print(await trio.lowlevel.FdStream(read).receive_some(1))
trio.run(main)
"""
LIMITED = """
import os, sys
SLOW = "import os, sys; os.write(int(sys.argv[1]), b'slow')"
from agent_dispatch.process.spawner import start_spawner
def greet(request, fds):
    os.write(fds[0], request["word"].encode())
spawner = start_spawner(lambda: greet, once=True)
import trio
from agent_dispatch.process.launcher import Launcher
async def main():
    launcher = Launcher(spawner, [sys.executable, "-c", SLOW])
    for _ in range(2):
        read, write = os.pipe()
        await launcher.start({"word": "forked"}, [write])
        os.close(write)
        print(await trio.lowlevel.FdStream(read).receive_some(10))
        if spawner.sock is not None:
            os.wait()  # Until the spawner is gone.
trio.run(main)
"""
BEREFT = """
import os, select, signal, tempfile
fifo = os.path.join(tempfile.mkdtemp(), "fifo")
os.mkfifo(fifo)
told = os.open(fifo, os.O_RDWR)
from agent_dispatch.process.spawner import start_spawner
def serve(request, fds):
    os.write(fds[0], b"up")
    os.read(fds[1], 1)
def prepare():
    with open(fifo, "w") as file:
        file.write(f"{os.getpid()} {os.getppid()}")
    return serve
spawner = start_spawner(prepare)
idle, spawner_pid = map(int, os.read(told, 100).split())
dead = select.poll()
dead.register(os.pidfd_open(idle), select.POLLIN)
os.kill(spawner_pid, signal.SIGSTOP)
os.waitpid(spawner_pid, os.WUNTRACED)
os.kill(idle, signal.SIGKILL)
dead.poll()
import trio
from agent_dispatch.process.launcher import Launcher
async def main():
    launcher = Launcher(spawner)
    work, _ = os.pipe()
    for _ in range(2):
        read, write = os.pipe()
        await launcher.start({}, [write, work])
        os.close(write)
        os.kill(spawner_pid, signal.SIGCONT)
        with trio.move_on_after(10):
            print(await trio.lowlevel.FdStream(read).receive_some(2))
trio.run(main)
"""
THREADED = """
import threading
from agent_dispatch.process.spawner import start_spawner
stop = threading.Event()
threading.Thread(target=stop.wait).start()
try:
    start_spawner()
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


def test_requests_are_refused_when_no_process_lives_to_take_them() -> None:
    assert run(STILLBORN) == "b''\n" * 3


def test_after_its_last_request_it_ends_and_the_slow_way_is_taken() -> None:
    assert run(LIMITED) == "b'forked'\nb'slow'\n"


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs pidfd_open(2)")
def test_a_process_that_dies_as_a_request_comes_holds_up_nobody() -> None:
    assert run(BEREFT) == "b'up'\n" * 2


def test_it_is_not_forked_from_a_process_with_threads() -> None:
    assert "before the first thread" in run(THREADED)


@pytest.mark.parametrize("name", ["guard", "spawner"])
def test_what_is_forked_needs_the_standard_library_only(name: str) -> None:
    script = (
        f"import sys, agent_dispatch.process.{name};"
        "print([m for m in ('trio', 'msgspec', 'mcp', 'asyncio') if m in sys.modules])"
    )
    assert run(script) == "[]\n"
