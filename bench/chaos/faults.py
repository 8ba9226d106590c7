"""The faults themselves: each strikes a scene once, at its moment, and ends when it is over."""

import fcntl
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

import trio

from agent_dispatch.jobs.file_store import FileJobStore
from bench.chaos.plan import Strike
from bench.chaos.scene import Client, Scene, signal_all

_SIGNALS = {
    "server killed": signal.SIGKILL,
    "server SIGTERM": signal.SIGTERM,
    "server SIGINT": signal.SIGINT,
    "server SIGHUP": signal.SIGHUP,
}
_LEAVE_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_NAMES = {"worker": "dispatch-work", "guard": "dispatch-guard", "spawner": "dispatch-spawn"}
_OURS = tuple(_NAMES.values())
_DAY_S = 86_400
_WATCH_S = 0.3
"""How long to look out for somebody who writes a record."""


class SkippedError(Exception):
    """This machine does not let us break that; the text says why."""


async def strike_scene(scene: Scene, client: Client, strike: Strike) -> None:
    """Carry out a fault; return when it is over.

    Raises:
        SkippedError: It cannot be had here.
    """
    kind, _, how = strike.fault.partition(" ")
    match kind, how:
        case "server", "stopped for a while":
            await _stop([client.process.pid], strike)
        case (("worker" | "guard"), "stopped for a while"):
            await _stop(_some(scene.named(_NAMES[kind]), strike), strike)
        case "server", ("killed" | "SIGTERM" | "SIGINT" | "SIGHUP"):
            signal_all([client.process.pid], _SIGNALS[strike.fault])
        case (("worker" | "guard"), "signalled"):
            signum = random.Random(strike.chance).choice(_LEAVE_SIGNALS)
            signal_all(_some(scene.named(_NAMES[kind]), strike), signum)
        case (("worker" | "guard" | "spawner"), "killed"):
            signal_all(_some(scene.named(_NAMES[kind]), strike), signal.SIGKILL)
        case _:
            await _strike_otherwise(scene, client, strike)


async def _strike_otherwise(scene: Scene, client: Client, strike: Strike) -> None:
    server = client.process.pid
    match strike.fault:
        case "server's group killed":
            with suppress(ProcessLookupError):
                os.killpg(server, signal.SIGKILL)
        case "server's stdin ends":
            await client.hang_up()
        case "client closes its reading end":
            await client.close_reading_end()
        case "worker and guard killed":
            signal_all([*scene.named("dispatch-work"), *scene.named("dispatch-guard")], 9)
        case "server and guard killed":
            signal_all([server, *scene.named("dispatch-guard")], signal.SIGKILL)
        case "all of ours killed":
            signal_all([server, *(pid for name in _OURS for pid in scene.named(name))], 9)
        case "killed while it writes a record":
            owners = [server, *scene.named("dispatch-work")]
            await trio.to_thread.run_sync(_kill_writer, scene.jobs / "live", owners)
        case "cancelled over MCP" | "cancelled from a shell":
            await _cancel(scene, client, strike)
        case "call withdrawn":
            await _withdraw(client, strike)
        case "client does not read":
            async with client.not_reading():
                await trio.sleep(strike.lasts_s)
        case "disk full":
            await _fill_disk(scene, strike)
        case "files limited in size":
            pass  # The scene was made so.
        case "locks held by a stuck process":
            await _hold_locks(scene, client, strike)
        case "clocks a day off":
            await trio.to_thread.run_sync(_turn_clocks, scene, strike)
        case "old jobs removed, by two at once":
            await _collect_twice(scene)
        case unknown:
            raise ValueError(f"no such fault: {unknown}")


def _some(pids: Sequence[int], strike: Strike) -> list[int]:
    """All of them, or one."""
    if strike.chance < 0.5 or not pids:
        return list(pids)
    return [random.Random(strike.chance).choice(pids)]


async def _stop(pids: Sequence[int], strike: Strike) -> None:
    signal_all(pids, signal.SIGSTOP)
    try:
        await trio.sleep(strike.lasts_s)
    finally:
        signal_all(pids, signal.SIGCONT)


def _kill_writer(live: Path, owners: Sequence[int]) -> None:
    """Kill at the moment at which a record is half written; or after a while, if none is."""
    give_up_at = time.monotonic() + _WATCH_S
    while time.monotonic() < give_up_at:
        with suppress(FileNotFoundError):
            if any(name.endswith(".tmp") for name in os.listdir(live)):
                break
    signal_all(owners, signal.SIGKILL)


async def _cancel(scene: Scene, client: Client, strike: Strike) -> None:
    """Cancel all that is known of, or one job three times at once."""
    known = sorted(client.acknowledged)
    chosen = known if strike.chance < 0.5 else known[-1:] * 3
    async with trio.open_nursery() as nursery:
        for job_id in chosen:
            if strike.fault == "cancelled over MCP":
                nursery.start_soon(partial(client.post, "dispatch_cancel", job_id=job_id))
            else:
                nursery.start_soon(scene.command, "cancel", job_id)


async def _withdraw(client: Client, strike: Strike) -> None:
    for request in _some([r for r in client.asked if r not in client.answers], strike):
        await client.withdraw(request)


# -- disks, locks, clocks


def mount_jobs(scene: Scene) -> str:
    """Put the jobs of a scene on a small disk of their own; "" or why not."""
    scene.jobs.mkdir(mode=0o700, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "none", str(scene.jobs)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        return str(error)
    return done.stderr.strip() if done.returncode else ""


def unmount_jobs(scene: Scene) -> None:
    """Take that disk away, with all that is on it; whoever still has it open keeps it."""
    subprocess.run(["umount", "--lazy", str(scene.jobs)], check=True)


async def _fill_disk(scene: Scene, strike: Strike) -> None:
    filler = scene.jobs / ".filler"
    _fill(filler)
    try:
        await trio.sleep(strike.lasts_s)
    finally:
        filler.unlink()


def _fill(filler: Path) -> None:
    if not os.path.ismount(filler.parent):
        raise SkippedError("no disk of its own can be mounted for the jobs")
    with open(filler, "wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 1024)


async def _hold_locks(scene: Scene, client: Client, strike: Strike) -> None:
    """Sit on the locks of the configuration and of a slot, as a process does that is stuck."""
    slots = scene.jobs / "slots" / "0"
    with ExitStack() as stack:
        stack.enter_context(_locked(Path(f"{scene.config}.lock"), fcntl.LOCK_EX))
        if slots.exists():
            stack.enter_context(_locked(slots / "0", fcntl.LOCK_EX))
            stack.enter_context(_locked(slots / "waiting", fcntl.LOCK_SH))
        await client.post("update_agent", name="infra", description="meanwhile")
        await trio.sleep(strike.lasts_s)


@contextmanager
def _locked(path: Path, how: int) -> Iterator[None]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        with suppress(BlockingIOError):  # Then somebody has it anyway.
            fcntl.flock(fd, how | fcntl.LOCK_NB)
        yield
    finally:
        os.close(fd)


def _turn_clocks(scene: Scene, strike: Strike) -> None:
    """Let all files be a day old or new, and a process look whose clock is a day off."""
    offset_s = _DAY_S if strike.chance < 0.5 else -_DAY_S

    def wrong_time() -> float:
        return time.time() + offset_s

    for path in scene.config.parent.rglob("*"):
        with suppress(FileNotFoundError):
            os.utime(path, (wrong_time(), wrong_time()))
    reader = FileJobStore(scene.jobs, now=wrong_time)
    for row in reader.list_jobs().jobs:
        reader.settle(row.id)
    reader.gc(30)


async def _collect_twice(scene: Scene) -> None:
    collect: Callable[[], object] = partial(FileJobStore(scene.jobs).gc, 7)
    other: Callable[[], object] = partial(FileJobStore(scene.jobs).gc, 7)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, collect)
        nursery.start_soon(trio.to_thread.run_sync, other)
        nursery.start_soon(scene.command, "gc")
