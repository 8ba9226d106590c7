"""What limits runs on this machine: slots, and one run at a time for a session or exclusive agent.

All are locks (flock(2)) on files, so the kernel frees them whatever becomes of their owner. The
guard of a run holds them too, until no process of the run is left: the limits count process trees,
not intentions. Each nesting depth has slots of its own; otherwise a parent that waits for its
nested dispatch would deadlock the pool.

In one process the order is first come, first served, and a freed slot is handed to the next in
line, unless another process waits too: it says so by a shared lock on the file `waiting`.

Two runs of one session at once both succeed, and one of the two branches is lost from its history
(measured with Claude Code 2.1.330). So beginning and resuming a session takes its lock.
"""

import contextlib
import fcntl
import math
import os
import random
from collections.abc import AsyncIterator, Callable, Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import trio

from agent_dispatch.errors import DispatchError
from agent_dispatch.file_locks import try_lock
from agent_dispatch.files import make_private_directory, open_private, remedy
from agent_dispatch.model.config import EffectiveAgent
from agent_dispatch.model.dispatch import Progress
from agent_dispatch.run.run_job import JobRun
from agent_dispatch.threads import gain, give_back

_POLL_S = (0.02, 0.06)
"""How often a waiter looks for a lock that another process has freed: waiting for it would take a
thread. Jittered, so that processes take turns."""
_THREADS = 8
"""How many looks at lock files go on at once."""
_SOON = 4
"""From this place on each step is told; before, every halving of the line: if every step were, a
long line would get as many messages, and writes of records, as the square of its length."""
_SUFFIX = ".lock"

OnPlace = Callable[[int], None]
"""Told the place in line, from 1: the first one, each of the last four, of the others some."""
IsLeft = Callable[[], bool]
"""Whether a process may be left that the lock is held for: then only its guard gives it back."""


class LimitsError(DispatchError):
    """A lock that limits runs cannot be used; nothing was started."""

    def __init__(self, what: str, error: OSError, directory: Path) -> None:
        fix = remedy(error, f"Make {directory} writable for you.")
        super().__init__(
            f"{what} cannot be used: {error}. Nothing was started. {fix}"
            " Or set AGENT_DISPATCH_JOBS_DIR to another directory."
        )


def _never() -> bool:
    return False


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
        """Hold a slot and these sessions for as long as a process of `run` is left.

        Those of `agents` that are exclusive are held too.

        Sessions that it begins are held too: their ids are known to others as soon as it runs.

        Raises:
            LimitsError: The lock files cannot be used.
        """

        def is_left() -> bool:
            return not run.tree_ended

        def on_place(place: int) -> None:
            run.tell(Progress(f"Waiting for a free slot, place {place} in line"))

        def on_wait() -> None:
            run.tell(Progress("Waiting for another run of this session to end"))

        def on_wait_for(name: str) -> None:
            run.tell(Progress(f"Waiting for another run of agent {name} to end"))

        async with contextlib.AsyncExitStack() as stack:
            # In this order everywhere: a run that waits for a session keeps no slot from others,
            # and of two dialogues of the same agents none waits for the other.
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
    """What one dispatch holds."""

    def __init__(
        self,
        locks: list[int],
        hold_slot: Callable[[], contextlib.AbstractAsyncContextManager["Slot"]],
    ) -> None:
        """Hold `locks` already; `hold_slot` holds a slot."""
        self._locks = locks
        self._hold_slot = hold_slot
        self._slot = contextlib.AsyncExitStack()
        self._slot_fd: int | None = None

    @property
    def fds(self) -> list[int]:
        """The descriptors that the guards of its runs are to hold."""
        return self._locks if self._slot_fd is None else [*self._locks, self._slot_fd]

    @contextlib.asynccontextmanager
    async def without_slot(self) -> AsyncIterator[None]:
        """Let others have the slot for as long as the block runs, and wait for one after it."""
        await self.give_slot_back()
        yield
        await self.take_slot()

    async def take_slot(self) -> None:
        """Wait for a slot."""
        self._slot_fd = (await self._slot.enter_async_context(self._hold_slot())).fd

    async def give_slot_back(self) -> None:
        """Let others have it; nothing is done if there is none."""
        self._slot_fd = None
        slot, self._slot = self._slot, contextlib.AsyncExitStack()
        await slot.aclose()


class Sessions:
    """The locks of all sessions, and of exclusive agents."""

    def __init__(self, directory: Path) -> None:
        """Use `directory`, which is made on first use."""
        self._directory = directory
        self._threads = trio.CapacityLimiter(_THREADS)

    @contextlib.asynccontextmanager
    async def hold(
        self, name: str, on_wait: Callable[[], object], is_left: IsLeft = _never
    ) -> AsyncIterator[int]:
        """Hold what `name` stands for while the block runs, and give the descriptor of its lock.

        Args:
            name: A session's UUID in small letters, or `agent-` and an agent's name.
            on_wait: Called once if another run holds it.
            is_left: Asked when the block is left.

        Raises:
            LimitsError: The lock file cannot be used.
        """
        path = str(self._directory / f"{name}{_SUFFIX}")
        give_up = partial(_close_session, path, unlink=True)
        told = False
        while (fd := await gain(partial(self._try, path), give_up, self._threads)) is None:
            if not told:
                on_wait()
                told = True
            await trio.sleep(random.uniform(*_POLL_S))
        try:
            yield fd
        finally:
            await give_back(partial(_close_session, path, fd, unlink=not is_left()))  # noqa: ASYNC102  # bounded inside

    def sweep(self) -> None:
        """Remove lock files of killed processes; what cannot be removed now is left for later."""
        # There may be no directory yet, or no descriptor left to look at it with.
        with contextlib.suppress(OSError):
            for path in map(str, self._directory.glob(f"*{_SUFFIX}")):
                # A run that needs a broken lock file says what is wrong with it.
                with contextlib.suppress(OSError):
                    _close_session(path, try_lock(path), unlink=True)

    def _try(self, path: str) -> int | None:
        try:
            return _lock(path)
        except OSError as error:
            what = "The lock that keeps two runs of one session or exclusive agent apart"
            raise LimitsError(what, error, self._directory) from error


def _lock(path: str) -> int | None:
    """Lock a file and create it if it is missing; None if another process holds it."""
    try:
        return try_lock(path)
    except FileNotFoundError:
        make_private_directory(os.path.dirname(path))
        return try_lock(path)


def _close_session(path: str, fd: int | None, *, unlink: bool) -> None:
    if fd is None:
        return
    if unlink:
        # Unlink while holding the lock, so that another opener notices the inode change. Leftovers
        # are swept later, and no reason to fail a run.
        with contextlib.suppress(OSError):
            os.unlink(path)
    os.close(fd)


class Slot(NamedTuple):
    """A held slot."""

    number: int
    fd: int
    """The locked file; the guard holds it as well."""


class _Look(NamedTuple):
    """What a look at all slots found."""

    slot: Slot | None
    waiting_fd: int | None = None
    """Tells other processes that this one waits."""
    others_wait: bool = False


class _Waiter:
    """A place in line."""

    def __init__(self, on_place: OnPlace) -> None:
        self._on_place = on_place
        self._told = math.inf

    def move_to(self, place: int) -> None:
        if place <= max(self._told / 2, min(self._told - 1, _SOON)):
            self._told = place
            self._on_place(place)


class Slots:
    """The slots of one depth, as one process sees them."""

    def __init__(self, directory: Path) -> None:
        """Use `directory`, which is made on first use."""
        self._directory = directory
        self._threads = trio.CapacityLimiter(_THREADS)
        self._line: list[_Waiter] = []
        self._head = trio.Lock()
        self._freed = trio.Event()
        self._handed_on: list[Slot] = []
        self._ours: set[int] = set()
        """The numbers of the slots that this process holds: trying them would be in vain."""
        self._is_full = False
        """The first in line has looked, and found no free slot."""
        self._others_wait = False
        """So do other processes, as it saw then."""

    @contextlib.asynccontextmanager
    async def hold(
        self, limit: int, on_place: OnPlace, is_left: IsLeft = _never
    ) -> AsyncIterator[Slot]:
        """Hold one of `limit` slots for as long as the block runs.

        If cancelled while waiting, the place in line is given up.

        Args:
            limit: How many slots there are.
            on_place: Told the place in line, if there is a line.
            is_left: Asked when the block is left.

        Raises:
            LimitsError: The files cannot be used.
        """
        slot = await self._acquire(limit, on_place)
        try:
            yield slot
        finally:
            await self._release(slot, is_left=is_left())  # noqa: ASYNC102  # bounded inside

    async def _acquire(self, limit: int, on_place: OnPlace) -> Slot:
        waiter = _Waiter(on_place)
        self._line.append(waiter)
        self._tell_places()
        try:
            async with self._head:
                return await self._wait_as_head(limit)
        finally:
            self._line.remove(waiter)
            if not self._line:
                self._is_full = self._others_wait = False
            self._tell_places()
            # Some may have been handed on to a waiter that then gave up.
            while len(self._handed_on) > len(self._line):
                await self._free(self._handed_on.pop())  # noqa: ASYNC102  # bounded inside

    def _tell_places(self) -> None:
        if self._is_full:
            for place, waiter in enumerate(self._line, start=1):
                waiter.move_to(place)

    async def _wait_as_head(self, limit: int) -> Slot:
        waiting_fd: int | None = None
        try:
            while True:
                while self._handed_on:
                    slot = self._handed_on.pop()
                    if slot.number < limit:
                        return slot
                    await self._free(slot)  # The limit was lowered meanwhile.
                look = partial(self._look, limit, frozenset(self._ours), waiting_fd)
                waiting_fd = None  # It belongs to the look, which closes it if we are cancelled.
                seen = await gain(look, _close_look, self._threads)
                waiting_fd, self._others_wait = seen.waiting_fd, seen.others_wait
                if seen.slot is not None:
                    self._ours.add(seen.slot.number)
                    return seen.slot
                self._is_full = True
                self._tell_places()
                if not self._handed_on:
                    with trio.move_on_after(random.uniform(*_POLL_S)):
                        await self._freed.wait()
        finally:
            if waiting_fd is not None:
                await give_back(os.close, waiting_fd)  # noqa: ASYNC102  # bounded inside

    def _look(self, limit: int, ours: frozenset[int], waiting_fd: int | None) -> _Look:
        """Try all slots that are not ours; if none is free, show that we wait. In a thread."""
        try:
            for number in range(limit):
                if number in ours:
                    continue
                if (fd := _lock(str(self._directory / str(number)))) is not None:
                    return _Look(Slot(number, fd), waiting_fd)
            if waiting_fd is None:
                waiting_fd = open_private(str(self._directory / "waiting"), os.O_RDWR | os.O_CREAT)
            # Our own shared lock does not conflict: flock(2) converts it.
            others_wait = not _flock(waiting_fd, fcntl.LOCK_EX)
            _flock(waiting_fd, fcntl.LOCK_SH)
            return _Look(None, waiting_fd, others_wait)
        except OSError as error:
            if waiting_fd is not None:
                os.close(waiting_fd)
            what = "The slots that limit concurrent runs"
            raise LimitsError(what, error, self._directory.parent) from error

    async def _release(self, slot: Slot, *, is_left: bool) -> None:
        if is_left:
            # The guard holds the lock until its tree is empty.
            await give_back(os.close, slot.fd)
            self._ours.discard(slot.number)
        elif self._line and not self._others_wait:
            self._handed_on.append(slot)
        else:
            await self._free(slot)
            if self._others_wait:
                return  # The first in line here looks again when the others do.
        self._freed.set()
        self._freed = trio.Event()

    async def _free(self, slot: Slot) -> None:
        await give_back(_unlock, slot.fd)
        self._ours.discard(slot.number)


def _unlock(fd: int) -> None:
    # Explicitly: a guard about to exit may have a copy of the descriptor still.
    fcntl.flock(fd, fcntl.LOCK_UN)
    os.close(fd)


def _close_look(look: _Look) -> None:
    if look.slot is not None:
        _unlock(look.slot.fd)
    if look.waiting_fd is not None:
        os.close(look.waiting_fd)


def _flock(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
