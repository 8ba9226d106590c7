"""What a run holds while it goes on: its sessions, its exclusive agents, and a slot.

All are locks (flock(2)) on files, so the kernel releases them when their owner dies. The guard of a
run holds them too, until no process of the run is left: the limits count process trees. Each
nesting depth has slots of its own; otherwise a parent that waits for its nested dispatch would
deadlock the pool.

Two runs of one session at once both succeed, but one of the two branches is lost from its history
(measured with Claude Code 2.1.330). So beginning and resuming a session takes its lock.
"""

import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterable
from functools import partial
from pathlib import Path

import trio

from agent_dispatch.file_locks import try_lock
from agent_dispatch.model.config import EffectiveAgent
from agent_dispatch.model.dispatch import Progress
from agent_dispatch.run.run_job import JobRun
from agent_dispatch.run.slots import (
    THREADS,
    IsLeft,
    LimitsError,
    Slot,
    Slots,
    lock,
    never,
    next_poll_s,
)
from agent_dispatch.threads import gain, give_back

_SUFFIX = ".lock"


class Limits:
    """The slots and session locks of one jobs directory; made once per service."""

    def __init__(self, jobs: Path, depth: int) -> None:
        """Use files below `jobs`, which are made on first use, and the slots of `depth`."""
        self.slots = Slots(jobs / "slots" / str(depth))
        self.sessions = Sessions(jobs / "sessions")

    @contextlib.asynccontextmanager
    async def hold(
        self,
        run: JobRun,
        max_concurrency: int,
        session_ids: Iterable[str | None],
        agents: Iterable[EffectiveAgent] = (),
    ) -> AsyncIterator["Held"]:
        """Hold a slot, these sessions and the exclusive ones of `agents` until `run` has ended.

        New sessions are held too: others can know their ids as soon as the run has started.

        Raises:
            LimitsError: The lock files cannot be used.
        """

        def is_left() -> bool:
            return not run.tree_ended

        def on_place(place: int) -> None:
            run.report(Progress(f"Waiting for a free slot, place {place} in line"))

        def on_wait() -> None:
            run.report(Progress("Waiting for another run of this session to end"))

        def on_wait_for(name: str) -> None:
            run.report(Progress(f"Waiting for another run of agent {name} to end"))

        async with contextlib.AsyncExitStack() as stack:
            # The same order everywhere: a run that waits for a session takes no slot from others,
            # and two dialogues of the same agents cannot deadlock.
            locks = [
                await stack.enter_async_context(
                    self.sessions.hold(f"agent-{name}", partial(on_wait_for, name), is_left)
                )
                for name in sorted(agent.name for agent in agents if agent.exclusive)
            ]
            locks += [
                await stack.enter_async_context(
                    self.sessions.hold(session_id.lower(), on_wait, is_left)
                )
                for session_id in filter(None, session_ids)
            ]
            held = Held(locks, partial(self.slots.hold, max_concurrency, on_place, is_left))
            await held.take_slot()
            stack.push_async_callback(held.give_slot_back)
            yield held


class Held:
    """The locks and the slot of one dispatch."""

    def __init__(
        self,
        locks: list[int],
        hold_slot: Callable[[], contextlib.AbstractAsyncContextManager["Slot"]],
    ) -> None:
        """Own `locks`, which are held already; `hold_slot` takes a slot."""
        self._locks = locks
        self._hold_slot = hold_slot
        self._slot = contextlib.AsyncExitStack()
        self._slot_fd: int | None = None

    @property
    def fds(self) -> list[int]:
        """The descriptors that the guards of its runs must hold too."""
        return self._locks if self._slot_fd is None else [*self._locks, self._slot_fd]

    @contextlib.asynccontextmanager
    async def without_slot(self) -> AsyncIterator[None]:
        """Release the slot for as long as the block runs, and wait for one after it."""
        await self.give_slot_back()
        yield
        await self.take_slot()

    async def take_slot(self) -> None:
        """Wait for a slot."""
        self._slot_fd = (await self._slot.enter_async_context(self._hold_slot())).fd

    async def give_slot_back(self) -> None:
        """Release the slot, if it is held."""
        self._slot_fd = None
        slot, self._slot = self._slot, contextlib.AsyncExitStack()
        await slot.aclose()


class Sessions:
    """The locks of sessions and of exclusive agents."""

    def __init__(self, directory: Path) -> None:
        """Use `directory`, which is made on first use."""
        self._directory = directory
        self._threads = trio.CapacityLimiter(THREADS)

    @contextlib.asynccontextmanager
    async def hold(
        self, name: str, on_wait: Callable[[], object], is_left: IsLeft = never
    ) -> AsyncIterator[int]:
        """Hold the lock of `name` while the block runs; yields its descriptor.

        Args:
            name: A session's UUID in lower case, or `agent-` and an agent's name.
            on_wait: Called once if another run holds the lock.
            is_left: Called at the end of the block.

        Raises:
            LimitsError: The lock file cannot be used.
        """
        path = str(self._directory / f"{name}{_SUFFIX}")
        give_up = partial(_close_session, path, unlink=True)
        is_reported = False
        while (fd := await gain(partial(self._try, path), give_up, self._threads)) is None:
            if not is_reported:
                on_wait()
                is_reported = True
            await trio.sleep(next_poll_s())
        try:
            yield fd
        finally:
            await give_back(partial(_close_session, path, fd, unlink=not is_left()))  # noqa: ASYNC102  # bounded inside

    def sweep(self) -> None:
        """Remove the lock files of killed processes; failures are left for the next time."""
        # There may be no directory yet, or no free descriptor.
        with contextlib.suppress(OSError):
            for path in map(str, self._directory.glob(f"*{_SUFFIX}")):
                # A run that needs a broken lock file reports what is wrong with it.
                with contextlib.suppress(OSError):
                    _close_session(path, try_lock(path), unlink=True)

    def _try(self, path: str) -> int | None:
        try:
            return lock(path)
        except OSError as error:
            what = "The lock that keeps two runs of one session or exclusive agent apart"
            raise LimitsError(what, error, self._directory) from error


def _close_session(path: str, fd: int | None, *, unlink: bool) -> None:
    if fd is None:
        return
    if unlink:
        # Unlink while holding the lock, so that another opener notices the inode change. Leftovers
        # are swept later; they must not fail a run.
        with contextlib.suppress(OSError):
            os.unlink(path)
    os.close(fd)
