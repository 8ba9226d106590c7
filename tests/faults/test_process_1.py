"""As the first process of a container, the server leaves no zombie behind."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from agent_dispatch.claude.process_tree import _children, state_and_parent
from agent_dispatch.model.job import JobStatus
from tests.faults.conftest import MakeHouse
from tests.faults.house import PRODUCT

NAMESPACE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
SUBREAPER = (
    sys.executable,
    "-IS",
    "-c",
    "import ctypes as c, os, sys; c.CDLL(None).prctl(36, 1); os.execv(sys.argv[1], sys.argv[1:])",
)
DETACHING = """
read_turn()
init()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os._exit(0)
    os._exit(0)
result("fine")
"""


def needs(prefix: tuple[str, ...]) -> None:
    try:
        subprocess.run([*prefix, "/bin/true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"{prefix[0]} cannot be used here: {error}")


def below(pid: int) -> list[int]:
    """All descendants, zombies too."""
    children = _children(pid)
    return children + [found for child in children for found in below(child)]


def zombies(pid: int) -> list[int]:
    """Without the fork server that the test killed."""
    dead = [found for found in below(pid) if state_and_parent(found)[0] == "Z"]
    return [found for found in dead if found not in named(pid, "dispatch-fork")]


def named(pid: int, name: str) -> list[int]:
    found: list[int] = []
    for each in below(pid):
        with suppress(OSError):  # Gone meanwhile.
            if Path(f"/proc/{each}/comm").read_text().strip() == name:
                found.append(each)
    return found


@pytest.mark.parametrize("fork_servers", ["kept", "killed"])
@pytest.mark.parametrize("prefix", [NAMESPACE, SUBREAPER], ids=["process 1", "subreaper"])
async def test_background_jobs_leave_no_zombie(
    make_house: MakeHouse, prefix: tuple[str, ...], fork_servers: str
) -> None:
    needs(prefix)
    house = make_house(DETACHING)
    with trio.fail_after(60):
        async with house.serving(*prefix) as server:
            root = server.process.pid
            for number in range(3):
                if fork_servers == "killed":
                    for pid in named(root, "dispatch-fork"):
                        with suppress(ProcessLookupError):  # A worker of it that has just left.
                            os.kill(pid, signal.SIGKILL)
                task = f"task {number}"
                submitted = await server.call("dispatch_async", agent="infra", task=task)
                job = await house.over(submitted["job_id"])
                assert job.status is JobStatus.DONE
            # Bounded by the deadline above: what is reaped is so within milliseconds.
            while zombies(root):  # noqa: ASYNC110  # not our children
                await trio.sleep(0.02)
    await house.nothing_left(within_s=3)


@pytest.mark.parametrize(
    ("signum", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 0), (signal.SIGHUP, 0)]
)
async def test_signals_reach_the_server_below_process_1(
    make_house: MakeHouse, signum: signal.Signals, status: int
) -> None:
    needs(NAMESPACE)
    house = make_house("read_turn()\ninit()\nresult('fine')")
    with trio.fail_after(30):
        async with house.serving(*NAMESPACE) as server:
            (first,) = _children(server.process.pid)
            os.kill(first, signum)
            assert await server.process.wait() == status
    await house.nothing_left(within_s=3)


@pytest.mark.parametrize(
    ("arguments", "status"), [(["--version"], 0), (["job", "0" * 32], 1), (["nonsense"], 2)]
)
def test_the_exit_status_and_the_output_are_those_of_the_command(
    arguments: list[str], status: int
) -> None:
    needs(NAMESPACE)
    plain = subprocess.run([*PRODUCT, *arguments], capture_output=True, check=False)
    done = subprocess.run([*NAMESPACE, *PRODUCT, *arguments], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (
        plain.returncode,
        plain.stdout,
        plain.stderr,
    )
    assert done.returncode == status
