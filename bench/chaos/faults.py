"""The faults: each is injected into a scene once, and its function returns when it has ended."""

import fcntl
import os
import random
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

import trio

from agent_dispatch.claude.process_tree import state_and_parent
from agent_dispatch.files import make_private_directory
from agent_dispatch.jobs.store import JobStore
from bench.chaos.agents import NEVER_REACHED, WITHDRAWN
from bench.chaos.plan import Strike
from bench.chaos.scene import Client, Scene, signal_all

Find = Callable[[Scene, Client], Sequence[int]]
Carry = Callable[[Scene, Client, Strike], Awaitable[object]]
"""Carries out one fault; not all of them wait (hence the ASYNC124 below)."""

_LEAVE_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_DAY_S = 86_400
_SUBMISSIONS = 5
_HAND_OVER_S = 0.02
"""Longer than the hand-over of a job takes."""
_HUNG_CALLS = 6
_WATCH_S = 0.3
"""How long to look for a process that is writing a record."""


class SkippedError(Exception):
    """The fault is not possible on this machine; the text says why."""


async def strike_scene(scene: Scene, client: Client, strike: Strike) -> None:
    """Inject a fault; return when it has ended.

    Raises:
        SkippedError: It is not possible on this machine.
    """
    await STRIKES[strike.fault](scene, client, strike)


# -- processes


def _server(scene: Scene, client: Client) -> Sequence[int]:
    return [client.process.pid]


def _named(name: str) -> Find:
    return lambda scene, client: scene.named(name)


def _together(*finds: Find) -> Find:
    return lambda scene, client: [pid for find in finds for pid in find(scene, client)]


def _fork_servers(scene: Scene, client: Client) -> Sequence[int]:
    """Not what a fork server has just forked, which has its name for a moment."""
    found = scene.named("dispatch-fork")
    owners = {process.pid for process in scene.processes()} - set(found)
    return [pid for pid in found if state_and_parent(pid)[1] in owners]


_WORKERS, _GUARDS = map(_named, ("dispatch-work", "dispatch-guard"))


def _signalled(find: Find, *signums: int) -> Carry:
    """Send one of several signals to one process or to all of them."""

    async def carry(scene: Scene, client: Client, strike: Strike) -> None:  # noqa: ASYNC124
        signum = random.Random(strike.chance).choice(signums)
        signal_all(_some(find(scene, client), strike), signum)

    return carry


def _killed(find: Find) -> Carry:
    """Kill all of them at once."""

    async def carry(scene: Scene, client: Client, strike: Strike) -> None:  # noqa: ASYNC124
        signal_all(find(scene, client), signal.SIGKILL)

    return carry


def _stopped(find: Find) -> Carry:
    async def carry(scene: Scene, client: Client, strike: Strike) -> None:
        pids = _some(find(scene, client), strike)
        signal_all(pids, signal.SIGSTOP)
        try:
            await trio.sleep(strike.lasts_s)
        finally:
            signal_all(pids, signal.SIGCONT)

    return carry


def _some(pids: Sequence[int], strike: Strike) -> Sequence[int]:
    """All processes, or one of them."""
    if strike.chance < 0.5 or not pids:
        return pids
    return [random.Random(strike.chance).choice(pids)]


async def _stop_for_good(scene: Scene, client: Client, strike: Strike) -> None:  # noqa: ASYNC124
    signal_all(_fork_servers(scene, client), signal.SIGSTOP)


async def _kill_group(scene: Scene, client: Client, strike: Strike) -> None:  # noqa: ASYNC124
    with suppress(ProcessLookupError):
        os.killpg(client.process.pid, signal.SIGKILL)


async def _kill_writers(scene: Scene, client: Client, strike: Strike) -> None:
    owners = [client.process.pid, *_WORKERS(scene, client)]
    await trio.to_thread.run_sync(_kill_writer, scene.jobs / "live", owners)


def _kill_writer(live: Path, owners: Sequence[int]) -> None:
    """Kill a process while a record is half written, or after a while if none is."""
    give_up_at = time.monotonic() + _WATCH_S
    while time.monotonic() < give_up_at:
        with suppress(FileNotFoundError):
            if any(name.endswith(".tmp") for name in os.listdir(live)):
                break
    signal_all(owners, signal.SIGKILL)


# -- clients


async def _hang_up(scene: Scene, client: Client, strike: Strike) -> None:
    await client.hang_up()


async def _close_reading_end(scene: Scene, client: Client, strike: Strike) -> None:
    await client.close_reading_end()


async def _stop_reading(scene: Scene, client: Client, strike: Strike) -> None:
    async with client.not_reading():
        await trio.sleep(strike.lasts_s)


def _cancelled(cancel: Callable[[Scene, Client, str], Awaitable[object]]) -> Carry:
    """Cancel all known jobs, or one job three times at once."""

    async def carry(scene: Scene, client: Client, strike: Strike) -> None:
        known = sorted(client.acknowledged)
        async with trio.open_nursery() as nursery:
            for job_id in known if strike.chance < 0.5 else known[-1:] * 3:
                nursery.start_soon(cancel, scene, client, job_id)

    return carry


async def _withdraw(scene: Scene, client: Client, strike: Strike) -> None:
    for request in _some([r for r in client.asked if r not in client.answers], strike):
        await client.withdraw(request)


async def _withdraw_submission(scene: Scene, client: Client, strike: Strike) -> None:
    """Submit a few jobs, and withdraw each during its hand-over."""
    for number in range(_SUBMISSIONS):
        task = f"plain{WITHDRAWN}{strike.chance:.6f}.{number}"
        request = await client.post("dispatch_async", agent="infra", task=task)
        await trio.sleep(_HAND_OVER_S * strike.chance * number / _SUBMISSIONS)
        if request is not None:
            await client.withdraw(request)


async def _ask_hung(scene: Scene, client: Client, strike: Strike) -> None:
    """Call an agent whose directory never answers, several times at once, and inspect it."""
    for number in range(_HUNG_CALLS):
        task = f"{NEVER_REACHED} #h{number}"
        await client.post("dispatch", agent="hung", task=task)


# -- disks, locks, clocks


def mount_jobs(scene: Scene) -> str:
    """Put the jobs of a scene on a separate small disk; returns "", or the reason why not."""
    scene.jobs.mkdir(mode=0o700, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "none", str(scene.jobs)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        return str(error)
    return done.stderr.strip() if done.returncode else ""


def unmount_jobs(scene: Scene) -> None:
    """Unmount that disk; processes that have it open keep it."""
    subprocess.run(["umount", "--lazy", str(scene.jobs)], check=True)


async def _fill_disk(scene: Scene, client: Client, strike: Strike) -> None:
    # Each strike has a file of its own, because two may overlap.
    filler = scene.jobs / f".filler-{id(strike)}"
    _fill(filler)
    try:
        await trio.sleep(strike.lasts_s)
    finally:
        filler.unlink()


def _fill(filler: Path) -> None:
    if not os.path.ismount(filler.parent):
        raise SkippedError("no separate disk can be mounted for the jobs")
    with open(filler, "wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 1024)


async def _hold_locks(scene: Scene, client: Client, strike: Strike) -> None:
    """Hold the locks of the configuration and of a slot, like a stuck process."""
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
        with suppress(BlockingIOError):  # Another process has it already.
            fcntl.flock(fd, how | fcntl.LOCK_NB)
        yield
    finally:
        os.close(fd)


async def _turn_clocks(scene: Scene, client: Client, strike: Strike) -> None:
    offset_s = _DAY_S if strike.chance < 0.5 else -_DAY_S
    await trio.to_thread.run_sync(_look_from_another_day, scene, offset_s)


def _look_from_another_day(scene: Scene, offset_s: float) -> None:
    """Make all files a day older or newer; run a reader whose clock is a day off."""

    def wrong_time() -> float:
        return time.time() + offset_s

    for path in scene.config.parent.rglob("*"):
        with suppress(FileNotFoundError):
            os.utime(path, (wrong_time(), wrong_time()))
    reader = JobStore(scene.jobs, now=wrong_time)
    for row in reader.lister.newest().jobs:
        reader.settle(row.id)
    reader.retention.collect(30)


async def _collect_twice(scene: Scene, client: Client, strike: Strike) -> None:
    collect: Callable[[], object] = partial(JobStore(scene.jobs).retention.collect, 7)
    other: Callable[[], object] = partial(JobStore(scene.jobs).retention.collect, 7)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, collect)
        nursery.start_soon(trio.to_thread.run_sync, other)
        nursery.start_soon(scene.command, "gc")


async def _put_odd_entry(scene: Scene, client: Client, strike: Strike) -> None:
    """Put an odd entry among the files of jobs; cleaning must name it and do the rest."""
    chance = random.Random(strike.chance)
    folder = chance.choice(["live", "logs", "sessions"])
    suffix = {"live": ".lock", "logs": ".log", "sessions": ".lock"}[folder]
    path = scene.jobs / folder / f"{chance.getrandbits(128):032x}{suffix}"
    kind = chance.choice(["link", "directory", "fifo"])
    try:
        make_private_directory(str(path.parent))
        _make_odd(path, kind)
    except OSError as error:  # Another fault has filled the disk.
        raise SkippedError(str(error)) from error
    try:
        collected = await trio.to_thread.run_sync(JobStore(scene.jobs).retention.collect, 7)
        if not any(told.startswith(f"{folder}/{path.name}: ") for told in collected.warnings):
            raise AssertionError(f"gc skipped {path} without a warning: {collected.warnings}")
        await scene.command("gc")
        await trio.sleep(strike.lasts_s)
    finally:
        _remove_odd(path, kind)


def _make_odd(path: Path, kind: str) -> None:
    match kind:
        case "link":
            path.symlink_to("/nowhere")
        case "directory":
            path.mkdir(0o700)
        case _:
            os.mkfifo(path, 0o600)


def _remove_odd(path: Path, kind: str) -> None:
    # The server removes every entry in `sessions` that no process holds.
    with suppress(FileNotFoundError):
        if kind == "directory":
            path.rmdir()
        else:
            path.unlink()


async def _nothing(scene: Scene, client: Client, strike: Strike) -> None:
    """Do nothing: the scene was set up with this fault."""


STRIKES: Mapping[str, Carry] = {
    "server killed": _killed(_server),
    "server's group killed": _kill_group,
    "server SIGTERM": _signalled(_server, signal.SIGTERM),
    "server SIGINT": _signalled(_server, signal.SIGINT),
    "server SIGHUP": _signalled(_server, signal.SIGHUP),
    "server's stdin ends": _hang_up,
    "client closes its reading end": _close_reading_end,
    "server stopped for a while": _stopped(_server),
    "worker killed": _signalled(_WORKERS, signal.SIGKILL),
    "worker signalled": _signalled(_WORKERS, *_LEAVE_SIGNALS),
    "worker stopped for a while": _stopped(_WORKERS),
    "guard killed": _signalled(_GUARDS, signal.SIGKILL),
    "guard signalled": _signalled(_GUARDS, *_LEAVE_SIGNALS),
    "guard stopped for a while": _stopped(_GUARDS),
    "fork server killed": _signalled(_fork_servers, signal.SIGKILL),
    "fork server stopped for a while": _stopped(_fork_servers),
    "fork server stopped for good": _stop_for_good,
    "worker and guard killed": _killed(_together(_WORKERS, _GUARDS)),
    "server and guard killed": _killed(_together(_server, _GUARDS)),
    "all of ours killed": _killed(_together(_server, _fork_servers, _WORKERS, _GUARDS)),
    "killed while it writes a record": _kill_writers,
    "cancelled over MCP": _cancelled(
        lambda scene, client, job_id: client.post("dispatch_cancel", job_id=job_id)
    ),
    "cancelled from a shell": _cancelled(
        lambda scene, client, job_id: scene.command("cancel", job_id)
    ),
    "call withdrawn": _withdraw,
    "submission withdrawn": _withdraw_submission,
    "directory that never answers": _ask_hung,
    "disk full": _fill_disk,
    "files limited in size": _nothing,
    "locks held by a stuck process": _hold_locks,
    "client does not read": _stop_reading,
    "clocks a day off": _turn_clocks,
    "old jobs removed, by two at once": _collect_twice,
    "odd entry among the files of jobs": _put_odd_entry,
}
