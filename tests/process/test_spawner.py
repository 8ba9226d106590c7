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
ALONE = """
import os, sys
SLOW = "import os, sys; os.write(int(sys.argv[1]), b'slow')"
from agent_dispatch.process.spawner import start_one
def greet(request, fds):
    os.write(fds[0], request["word"].encode())
    os.close(fds[0])
    os.read(fds[1], 1)
spawner = start_one(lambda: greet)
import trio
from agent_dispatch.process.launcher import Launcher
async def main():
    launcher = Launcher(spawner, [sys.executable, "-c", SLOW])
    for _ in range(2):
        work, finish = os.pipe()
        for _ in range(2):
            read, write = os.pipe()
            await launcher.start({"word": "forked"}, [write, work])
            os.close(write)
            print(await trio.lowlevel.FdStream(read).receive_some(10))
        print(spawner.wait_idle(0.01))
        os.close(finish)
        print(spawner.wait_idle(10))
        os.close(work)
trio.run(main)
"""
DESERTED = """
from agent_dispatch.process.spawner import start_one
def die():
    raise SystemExit
spawner = start_one(die)
import os, trio
from agent_dispatch.process.launcher import Launcher
async def main():
    await Launcher(spawner).start({}, [0])
    print(spawner.wait_idle(10), spawner.wait_idle(10))
try:
    trio.run(main)
finally:
    os.wait()
"""
LENT = """
import os
from agent_dispatch.process import frames
from agent_dispatch.process.spawner import lend_one, start_spawner
def greet(request, fds):
    os.write(fds[0], b"%d\\n" % os.getpid())
    os.close(fds[0])
lender = start_spawner(lambda: greet)
def borrow(request, fds):
    for _ in range(2):
        one = lend_one(lender)
        for _ in range(2):
            if one.sock is not None:
                frames.encode({}, fds).send_some(one.sock)
                one.sent()
                one.wait_idle(10)
            else:
                os.write(fds[0], b"none\\n")
        one.close()
    os.close(fds[0])
borrower = start_spawner(lambda: borrow, lender=lender)
def ask(spawner):
    read, write = os.pipe()
    frames.encode({}, [write]).send_some(spawner.sock)
    os.close(write)
    with open(read) as file:
        return file.read().split()
first, again, *others = ask(borrower)
print(first == again, others, ask(lender) != [])
"""
TOLD = """
import os, signal, sys
os.mkfifo(sys.argv[1])
told = os.open(sys.argv[1], os.O_RDWR)
def tell(*pids):
    with open(sys.argv[1], "w") as file:
        print(*pids, file=file)
def hear():
    return list(map(int, os.read(told, 100).split()))
from agent_dispatch.process import guard
from agent_dispatch.process.spawner import start_spawner
"""
BEREFT = f"""{TOLD}
import select
def serve(request, fds):
    os.write(fds[0], b"up")
    os.read(fds[1], 1)
def prepare():
    tell(os.getpid(), os.getppid())
    return serve
spawner = start_spawner(prepare)
idle, spawner_pid = hear()
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
        await launcher.start(dict(), [write, work])
        os.close(write)
        os.kill(spawner_pid, signal.SIGCONT)
        with trio.move_on_after(10):
            print(await trio.lowlevel.FdStream(read).receive_some(2))
trio.run(main)
"""
GUARDED = f"""{TOLD}
def prepare():
    run = guard.prepare()
    tell(os.getpid(), *guard.living_descendants(os.getpid()))
    return run
spawner = start_spawner(prepare)
idle, embryo = hear()
import trio
from agent_dispatch.core.command import MARKER_VARIABLE, Command
from agent_dispatch.process.child import open_child
from agent_dispatch.process.launcher import Launcher
async def main(disturb):
    command = Command(("/bin/sleep", "0.1"), "/", dict([(MARKER_VARIABLE, "disturbed")]))
    async with open_child(Launcher(spawner), command, on_stdout=print) as child:
        disturb()
        await child.wait_until(lambda: child.ended)
    print(child.exit_code)
"""
SIGNALLED = f"""{GUARDED}
os.kill(idle, signal.SIGTERM)
trio.run(main, lambda: None)
"""
UNBORN = f"""{GUARDED}
os.kill(embryo, signal.SIGSTOP)
trio.run(main, lambda: os.kill(embryo, signal.SIGKILL))
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


def run(script: str, *argv: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script, *argv],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    return done.stdout


def test_requests_are_refused_when_no_process_lives_to_take_them() -> None:
    assert run(STILLBORN) == "b''\n" * 3


def test_the_only_one_takes_one_request_at_a_time_and_meanwhile_the_slow_way_is_taken() -> None:
    assert run(ALONE) == "b'forked'\nb'slow'\nFalse\nTrue\n" * 2


def test_the_only_one_is_not_idle_when_it_has_died() -> None:
    assert run(DESERTED) == "False False\n"


def test_one_is_lent_to_whom_the_owner_forks_and_goes_on_with_the_others_behind_it() -> None:
    assert run(LENT) == "True ['none', 'none'] True\n"


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs pidfd_open(2)")
def test_a_process_that_dies_as_a_request_comes_holds_up_nobody(tmp_path: Path) -> None:
    assert run(BEREFT, str(tmp_path / "told")) == "b'up'\n" * 2


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_signal_to_an_idle_guard_does_not_end_its_next_run(tmp_path: Path) -> None:
    assert run(SIGNALLED, str(tmp_path / "told")) == "0\n"


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_program_that_is_killed_before_it_was_read_says_so(tmp_path: Path) -> None:
    assert run(UNBORN, str(tmp_path / "told")) == "-9\n"


def test_it_is_not_forked_from_a_process_with_threads() -> None:
    assert "before the first thread" in run(THREADED)


@pytest.mark.parametrize("name", ["guard", "spawner"])
def test_what_is_forked_needs_the_standard_library_only(name: str) -> None:
    script = (
        f"import sys, agent_dispatch.process.{name};"
        "print([m for m in ('trio', 'msgspec', 'mcp', 'asyncio') if m in sys.modules])"
    )
    assert run(script) == "[]\n"
