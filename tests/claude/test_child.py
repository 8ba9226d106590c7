import errno
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import trio

from agent_dispatch.claude import guard
from agent_dispatch.claude.child import Child, ChildStartError, open_child
from agent_dispatch.claude.fork_server import ForkServer
from agent_dispatch.claude.launcher import Launcher
from tests.claude.trees import KINDS, Tree


class Output:
    """Collects stdout and lets a test wait for a piece of it."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.came = trio.Event()

    def __call__(self, chunk: bytes) -> None:
        self.data += chunk
        self.came.set()
        self.came = trio.Event()

    async def wait_for(self, piece: bytes) -> None:
        while piece not in self.data:
            await self.came.wait()


async def ended(child: Child) -> None:
    with trio.fail_after(20):
        await child.wait_until(lambda: child.ended)


@pytest.fixture(params=["fork_server", "slow way"])
def either_launcher(request: pytest.FixtureRequest, fork_server: ForkServer) -> Launcher:
    return Launcher(fork_server if request.param == "fork_server" else None)


async def test_it_passes_stdin_stdout_stderr_and_exit_code(
    either_launcher: Launcher, tmp_path: Path
) -> None:
    tree = Tree(
        "sys.stdout.write(sys.stdin.read().upper()); sys.stdout.flush();"
        "sys.stderr.write(os.getcwd()); sys.exit(7)",
        cwd=tmp_path,
    )
    output = Output()
    with trio.fail_after(20):
        async with open_child(either_launcher, tree.command, on_stdout=output) as child:
            await child.send(b"hello")
            child.close_stdin()
            await child.wait_until(lambda: child.exited)
    assert (bytes(output.data), child.exit_code, child.left_running) == (b"HELLO", 7, 0)
    assert child.stderr_tail == str(tmp_path)


async def test_its_stdin_is_a_pipe_of_its_own(launcher: Launcher) -> None:
    tree = Tree("say(os.readlink('/proc/self/fd/0'))")
    output = Output()
    async with open_child(launcher, tree.command, on_stdout=output) as child:
        await ended(child)
    assert output.data.decode().strip().startswith("pipe:")
    assert output.data.decode().strip() != os.readlink("/proc/self/fd/0")


async def test_it_inherits_no_other_descriptor_and_no_signal_setting(launcher: Launcher) -> None:
    tree = Tree(
        "say(','.join(sorted(set(os.listdir('/proc/self/fd')) - {'3'})));"
        "say([l for l in open('/proc/self/status') if l[:6] in ('SigIgn', 'SigBlk')].__repr__())"
    )
    output = Output()
    held, other = os.pipe()
    async with open_child(launcher, tree.command, on_stdout=output, held_fds=[held]) as child:
        await ended(child)
    os.close(held)
    os.close(other)
    fds, signals = output.data.decode().splitlines()
    assert fds == "0,1,2"
    # Python itself ignores SIGPIPE (13) and SIGXFSZ (25) once it runs.
    assert f"SigIgn:\\t{(1 << 12) | (1 << 24):016x}" in signals
    assert f"SigBlk:\\t{0:016x}" in signals


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", [guard.END_ON_CANCEL, guard.END_ON_DEADLINE, guard.END_NOW])
async def test_ending_it_ends_its_whole_tree(launcher: Launcher, kind: str, order: bytes) -> None:
    tree = Tree(KINDS[kind])
    output = Output()
    async with open_child(launcher, tree.command, on_stdout=output) as child:
        with trio.fail_after(20):
            await output.wait_for(b"up")
        child.end(order)
        await ended(child)
        assert tree.living() == []


@pytest.mark.parametrize("kind", KINDS)
async def test_leaving_the_block_ends_its_whole_tree(either_launcher: Launcher, kind: str) -> None:
    tree = Tree(KINDS[kind])
    output = Output()
    with trio.fail_after(20):
        async with open_child(either_launcher, tree.command, on_stdout=output):
            await output.wait_for(b"up")
    assert tree.living() == []


@pytest.mark.parametrize("kind", KINDS)
async def test_cancelling_the_block_ends_its_whole_tree(launcher: Launcher, kind: str) -> None:
    tree = Tree(KINDS[kind])
    output = Output()
    with trio.fail_after(20), trio.CancelScope() as scope:
        async with open_child(launcher, tree.command, on_stdout=output):
            await output.wait_for(b"up")
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert tree.living() == []


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"plain", "ignoring"}))
async def test_processes_that_it_leaves_running_are_ended_and_counted(
    launcher: Launcher, kind: str
) -> None:
    tree = Tree(KINDS[kind].replace("stay(ignore=False)", "os._exit(3)"))
    async with open_child(launcher, tree.command, on_stdout=Output()) as child:
        await ended(child)
        assert tree.living() == []
    assert child.exit_code == 3
    assert child.left_running >= 1


async def test_a_helper_that_is_about_to_exit_is_not_counted(launcher: Launcher) -> None:
    tree = Tree("os.fork() or (time.sleep(0.03), os._exit(0))")
    async with open_child(launcher, tree.command, on_stdout=Output()) as child:
        await ended(child)
    assert child.left_running == 0


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"cleared environment"}))
async def test_its_tree_ends_when_the_guard_is_killed(launcher: Launcher, kind: str) -> None:
    tree = Tree(KINDS[kind])
    output = Output()
    with trio.fail_after(20):
        async with open_child(launcher, tree.command, on_stdout=output) as child:
            await output.wait_for(b"up")
            assert child.pid is not None
            os.kill(parent_of(child.pid), signal.SIGKILL)
            await child.wait_until(lambda: child.ended)
    assert child.guard_lost
    await tree.gone()


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


async def test_without_a_subreaper_group_and_marker_find_the_tree(launcher: Launcher) -> None:
    # As on a system without prctl(2): the guard is told not to use it.
    for kind in ("plain", "ignoring", "group", "setsid", "daemon", "stopped"):
        tree = Tree(KINDS[kind])
        output = Output()
        with trio.fail_after(20):
            async with open_child(Plain(launcher), tree.command, on_stdout=output):
                await output.wait_for(b"up")
        assert tree.living() == [], kind


class Plain(Launcher):
    """Starts guards that are told to do without a subreaper."""

    def __init__(self, launcher: Launcher) -> None:
        super().__init__(None)
        self._launcher = launcher

    async def start(self, request: dict[str, object], fds: list[int]) -> None:  # type: ignore[override]
        await self._launcher.start({**request, "subreaper": False}, fds)


@pytest.mark.parametrize(
    ("spoil", "number", "stage"),
    [
        (lambda t: {"argv": ("/no/such/program",)}, errno.ENOENT, "exec"),
        (lambda t: {"argv": (str(t),)}, errno.EACCES, "exec"),
        (lambda t: {"cwd": str(t / "missing")}, errno.ENOENT, "chdir"),
    ],
    ids=["no program", "not executable", "no directory"],
)
async def test_a_failed_start_has_an_errno_and_a_stage(
    either_launcher: Launcher,
    tmp_path: Path,
    spoil: Callable[[Path], dict[str, object]],
    number: int,
    stage: str,
) -> None:
    command = msgspec.structs.replace(Tree("").command, **spoil(tmp_path))
    with trio.fail_after(20), pytest.raises(ChildStartError) as caught:
        async with open_child(either_launcher, command, on_stdout=Output()) as child:
            await child.wait_until(lambda: child.exited)
    assert (caught.value.errno, caught.value.stage) == (number, stage)


async def test_without_its_fork_server_a_new_python_is_started() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    ours.setblocking(False)
    output = Output()
    with trio.fail_after(20):
        async with open_child(
            Launcher(ForkServer(ours)), Tree("say('up')").command, on_stdout=output
        ) as child:
            await child.wait_until(lambda: child.exited)
    assert bytes(output.data) == b"up\n"


async def test_a_child_that_has_closed_its_pipes_is_waited_for(launcher: Launcher) -> None:
    tree = Tree("os.close(1); os.close(2); time.sleep(0.3); os._exit(5)")
    async with open_child(launcher, tree.command, on_stdout=Output()) as child:
        await ended(child)
    assert child.exit_code == 5


async def test_floods_on_both_pipes_are_read_and_stderr_keeps_its_tail(launcher: Launcher) -> None:
    tree = Tree(
        "import threading\n"
        "def flood(fd):\n"
        "    for i in range(400): os.write(fd, b'x' * 65536)\n"
        "t = threading.Thread(target=flood, args=(2,)); t.start(); flood(1); t.join()\n"
        "os.write(2, b'the end')"
    )
    size = 0

    def count(chunk: bytes) -> None:
        nonlocal size
        size += len(chunk)

    async with open_child(launcher, tree.command, on_stdout=count) as child:
        await ended(child)
    assert size == 400 * 65536
    assert child.stderr_tail.endswith("xthe end")
    assert len(child.stderr_tail) == 64 * 1024


async def test_output_while_it_is_being_ended_is_read(launcher: Launcher) -> None:
    tree = Tree(
        "def leave(*_):\n"
        "    left = b'y' * 300000\n"
        "    while left: left = left[os.write(1, left):]\n"
        "    os._exit(0)\n"
        "signal.signal(15, leave); say('up'); stay(ignore=False)"
    )
    output = Output()
    with trio.fail_after(20):
        async with open_child(launcher, tree.command, on_stdout=output):
            await output.wait_for(b"up\n")
    assert output.data.count(b"y") == 300000


async def test_held_descriptors_are_released_when_the_tree_is_empty(launcher: Launcher) -> None:
    tree = Tree(KINDS["setsid"])
    output = Output()
    read, write = os.pipe()
    with trio.fail_after(20):
        async with open_child(launcher, tree.command, on_stdout=output, held_fds=[write]):
            os.close(write)
            await output.wait_for(b"up")
            os.set_blocking(read, False)
            with pytest.raises(BlockingIOError):
                os.read(read, 1)
        await trio.lowlevel.wait_readable(read)
        assert os.read(read, 1) == b""
    os.close(read)


async def test_a_guard_holds_no_descriptor_of_another_run(
    fork_server: ForkServer,
) -> None:
    launcher = Launcher(fork_server)
    ends: dict[int, int] = {}

    async def run_one(number: int) -> None:
        ends[number], write = os.pipe()
        tree, output = Tree(KINDS["plain"]), Output()
        async with open_child(launcher, tree.command, on_stdout=output, held_fds=[write]):
            os.close(write)
            await output.wait_for(b"up")
            up[number].set()
            if number == 0:
                await enough.wait()

    up = [trio.Event() for _ in range(4)]
    enough = trio.Event()
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            for number in range(len(up)):
                nursery.start_soon(run_one, number)
            for each in up:
                await each.wait()
            with trio.fail_after(3):  # The first run goes on meanwhile.
                for number in range(1, len(up)):
                    await trio.lowlevel.wait_readable(ends[number])
            enough.set()
    for read in ends.values():
        assert os.read(read, 1) == b""
        os.close(read)


async def test_no_descriptor_is_left_open(launcher: Launcher) -> None:
    async def run_one() -> None:
        async with open_child(launcher, Tree("pass").command, on_stdout=Output()) as child:
            await ended(child)

    await run_one()
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(5):
        await run_one()
    assert len(os.listdir("/proc/self/fd")) == len(before)
