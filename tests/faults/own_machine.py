"""Scenarios in separate namespaces, in which disks can be mounted and pids chosen.

full DIRECTORY        an agent fills the disk of the jobs, then answers
read-only DIRECTORY   the disk of the jobs becomes read-only
reused DIRECTORY      the pid of a dead owner is given to another process
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import trio

from agent_dispatch.jobs.store import JobStore
from agent_dispatch.model.dispatch import ErrorType
from agent_dispatch.model.job import JobStatus
from tests.e2e.mcp_client import McpClient
from tests.faults.house import PRODUCT, House
from tests.jobs.support import running

FILLING = """
turn = json.dumps(read_turn())
init()
fd = os.open({filler!r}, os.O_WRONLY | os.O_CREAT)
try:
    while True:
        os.write(fd, b"x" * 1024)
except OSError:
    os.close(fd)
result("r" * (300_000 if "much" in turn else 20_000))
"""
COUNTED = """
with open({started!r}, "a") as file:
    file.write("started\\n")
read_turn()
init()
result()
"""


def mount_jobs(house: House, *options: str) -> None:
    """Put the jobs on a disk of 1 MiB, or change the disk's options."""
    house.jobs.mkdir(mode=0o700, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", ",".join(["size=1m", "mode=700", *options])]
    subprocess.run([*command, "none", house.jobs], check=True)


async def listed(house: House) -> Any:
    """Run `jobs`: as a new Python, because there is no warm process in these namespaces."""
    command = [*PRODUCT, "jobs", "--json"]
    done = await trio.run_process(command, capture_stdout=True, env=house.environ, check=False)
    return json.loads(done.stdout)


async def make_read_only(house: House) -> None:
    """Take the right to write from the jobs' disk.

    A guard closes its lock files a moment after its last word; until then the disk is busy.
    """
    with trio.fail_after(10):
        while True:
            try:
                return mount_jobs(house, "remount", "ro")
            except subprocess.CalledProcessError:
                await trio.sleep(0.01)


async def refusal(server: McpClient, tool: str) -> str:
    """Why a dispatch is refused."""
    call = {"name": tool, "arguments": {"agent": "infra", "task": "go"}}
    answer = await server.request("tools/call", call)
    assert answer["isError"], answer
    error: str = json.loads(answer["content"][0]["text"])["error"]
    return error


async def dispatched(server: McpClient, task: str) -> dict[str, Any]:
    """The result of a dispatch."""
    result: dict[str, Any] = await server.call("dispatch", agent="infra", task=task)
    assert result["success"], result
    return result


async def fill_the_disk(directory: Path) -> None:
    """An answer is kept, whole or its beginning. Then nothing is started until there is space."""
    filler = directory / "config" / "jobs" / ".filler"
    house = House(directory, FILLING.format(filler=str(filler)))
    mount_jobs(house)
    async with house.serving("env") as server:
        submitted = await server.call("dispatch_async", agent="infra", task="go")
        job = await house.over(submitted["job_id"])
        assert (job.status, job.result and len(job.result.result)) == (JobStatus.DONE, 20_000)
        for tool in ("dispatch", "dispatch_async"):
            error = await refusal(server, tool)
            assert "No space left" in error, error
            assert "dispatch_gc" in error, error
        assert [row.id for row in house.store.lister.newest().jobs] == [job.id]
        assert house.agents() == []

        filler.unlink()
        assert len((await dispatched(server, "go"))["result"]) == 20_000
        filler.unlink()
        # The whole answer at once, because the rest could not be fetched later.
        much = await dispatched(server, "much")
        assert len(much["result"]) == 300_000
        assert "No space left" in much["hint"], much["hint"]
        assert "job_id" not in much
        kept = house.store.settle(house.store.lister.newest(limit=1).jobs[0].id)
        assert kept.status is JobStatus.DONE
        assert kept.result is not None
        assert (kept.result.truncated, kept.result.full_size) == (True, 300_000)
    await house.nothing_left(within_s=3)


async def take_the_right_to_write(directory: Path) -> None:
    """Nothing is started, and everything can be read."""
    started = directory / "started"
    house = House(directory, COUNTED.format(started=str(started)))
    mount_jobs(house)
    async with house.serving("env") as server:
        result = await dispatched(server, "go first")
        await make_read_only(house)
        for tool in ("dispatch", "dispatch_async"):
            error = await refusal(server, tool)
            assert "Read-only file system" in error, error
            assert "nothing was started" in error, error
        job_id = result["job_id"]
        assert (await server.call("dispatch_status", job_id=job_id))["status"] == "done"
        assert (await server.call("fetch_result", ref=job_id))["result"] == "fine"
        [row] = await listed(house)
        assert row["id"] == job_id
    assert started.read_text() == "started\n"
    await house.nothing_left(within_s=3)


def forked(run: Callable[[], object]) -> int:
    """A process that does something and then stays alive."""
    pid = os.fork()
    if pid == 0:
        _stay(run)
    return pid


def _stay(run: Callable[[], object]) -> NoReturn:
    try:
        run()
        signal.pause()
    finally:
        os._exit(1)


def reuse_a_pid(directory: Path) -> None:
    """A dead owner's job is lost, although its pid is in use again; that process is left alone."""
    store = JobStore(directory / "jobs")
    read, write = os.pipe()
    owner = forked(lambda: os.write(write, running(store).job.id.encode()))
    job_id = os.read(read, 32).decode()
    assert store.settle(job_id).status is JobStatus.RUNNING
    os.kill(owner, signal.SIGKILL)
    os.waitpid(owner, 0)
    Path("/proc/sys/kernel/ns_last_pid").write_text(str(owner - 1))
    stranger = forked(lambda: None)
    assert stranger == owner
    assert not store.requests.cancel(job_id, "a test")
    assert store.settle(job_id).error_type is ErrorType.LOST
    assert os.waitpid(stranger, os.WNOHANG) == (0, 0)
    os.kill(stranger, signal.SIGKILL)
    os.waitpid(stranger, 0)


def main(scenario: str, directory: str) -> None:
    match scenario:
        case "full":
            trio.run(fill_the_disk, Path(directory))
        case "read-only":
            trio.run(take_the_right_to_write, Path(directory))
        case "reused":
            reuse_a_pid(Path(directory))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(*sys.argv[1:])
