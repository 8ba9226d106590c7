"""The slots of one nesting depth: the machine-wide limit on runs, as locked files (flock(2)).

Inside one process, waiters are served in order, and a freed slot is handed to the next in line. If
another process waits too, which it shows by a shared lock on the file `waiting`, the slot is freed
for everybody.
"""

import contextlib
import fcntl
import math
import os
import random
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import trio

from agent_dispatch.errors import DispatchError
from agent_dispatch.file_locks import try_lock
from agent_dispatch.files import make_private_directory, open_private, remedy
from agent_dispatch.threads import gain, give_back

_POLL_S = (0.02, 0.06)
"""How often a waiter tries a lock that another process holds: a blocking wait would take a thread.
"""
THREADS = 8
"""How many lock files are tried at once."""
_SOON = 4
"""Each of the last places in line is reported; before them, only each halving of the line. If every
step were reported, a long line would get as many messages as the square of its length."""
_PLACE_PACE_S = 1.0
"""The shortest time between two reports to one waiter, for a line that moves fast."""

OnPlace = Callable[[int], None]
"""Gets the place in line, counted from 1; not every step is reported."""
IsLeft = Callable[[], bool]
"""Whether a process of the run may be left; then its guard releases the lock, and nobody else."""


class LimitsError(DispatchError):
    """A lock file that limits runs cannot be used; nothing was started."""

    def __init__(self, what: str, error: OSError, directory: Path) -> None:
        fix = remedy(error, f"Make {directory} writable for you.")
        super().__init__(
            f"{what} cannot be used: {error}. Nothing was started. {fix}"
            " Or set AGENT_DISPATCH_JOBS_DIR to another directory."
        )


def never() -> bool:
    """An `IsLeft` for holders that have no processes."""
    return False


def next_poll_s() -> float:
    """How long to wait before the next try, in seconds. Random, so that processes take turns."""
    return random.uniform(*_POLL_S)


def lock(path: str) -> int | None:
    """Lock a file, which is created if it is missing; None if another process holds it."""
    try:
        return try_lock(path)
    except FileNotFoundError:
        make_private_directory(os.path.dirname(path))
        return try_lock(path)


class Slot(NamedTuple):
    """A held slot."""

    number: int
    fd: int
    """The locked file; the guard holds it as well."""


class _Look(NamedTuple):
    """What a try of all slots found."""

    slots: Sequence[Slot] = ()
    """None if all are held."""
    waiting_fd: int | None = None
    """A shared lock that shows other processes that this one waits."""
    others_wait: bool = False


class _Waiter:
    """A place in line."""

    def __init__(self, on_place: OnPlace) -> None:
        self._on_place = on_place
        self._reported = math.inf
        self._next_at = -math.inf

    def move_to(self, place: int) -> None:
        """Note the place; called again and again, so the newest one is reported in the end."""
        is_news = place <= max(self._reported / 2, min(self._reported - 1, _SOON))
        if is_news and trio.current_time() >= self._next_at:
            self._reported, self._next_at = place, trio.current_time() + _PLACE_PACE_S
            self._on_place(place)


class Slots:
    """The slots of one depth, as one process sees them."""

    def __init__(self, directory: Path) -> None:
        """Use `directory`, which is made on first use."""
        self._directory = directory
        self._threads = trio.CapacityLimiter(THREADS)
        self._line: list[_Waiter] = []
        self._head = trio.Lock()
        self._freed = trio.Event()
        self._handed_on: list[Slot] = []
        self._ours: set[int] = set()
        """The numbers of the slots that this process holds; they need no try."""
        self._is_full = False
        """The first in line has tried all slots in vain."""
        self._others_wait = False
        """Other processes waited too when it tried."""

    @contextlib.asynccontextmanager
    async def hold(
        self, limit: int, on_place: OnPlace, is_left: IsLeft = never
    ) -> AsyncIterator[Slot]:
        """Hold one of `limit` slots for as long as the block runs.

        If cancelled while waiting, the place in line is given up.

        Args:
            limit: How many slots there are.
            on_place: Gets the place in line, if there is a line.
            is_left: Called at the end of the block.

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
            # A slot may have been handed on to a waiter that then gave up.
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
                # One look for the whole line; a thread for each would take turns with all others.
                wanted = 1 if self._others_wait else len(self._line)
                look = partial(self._look, limit, frozenset(self._ours), wanted, waiting_fd)
                waiting_fd = None  # It belongs to the look, which closes it on cancellation.
                seen = await gain(look, _close_look, self._threads)
                waiting_fd, self._others_wait = seen.waiting_fd, seen.others_wait
                self._ours.update(slot.number for slot in seen.slots)
                self._handed_on.extend(reversed(seen.slots))
                if self._handed_on:
                    continue
                self._is_full = True
                self._tell_places()
                if not self._handed_on:
                    with trio.move_on_after(next_poll_s()):
                        await self._freed.wait()
        finally:
            if waiting_fd is not None:
                await give_back(os.close, waiting_fd)  # noqa: ASYNC102  # bounded inside

    def _look(self, limit: int, ours: frozenset[int], wanted: int, waiting_fd: int | None) -> _Look:
        """Take free slots, or show that we wait if none is free. Blocks.

        Args:
            limit: How many slots there are.
            ours: The numbers of those that we hold already.
            wanted: How many to take at most.
            waiting_fd: A shared lock from an earlier look.
        """
        slots: list[Slot] = []
        try:
            for number in range(limit):
                if number in ours:
                    continue
                if (fd := lock(str(self._directory / str(number)))) is not None:
                    slots.append(Slot(number, fd))
                    if len(slots) == wanted:
                        break
            if slots:
                return _Look(slots, waiting_fd)
            if waiting_fd is None:
                waiting_fd = open_private(str(self._directory / "waiting"), os.O_RDWR | os.O_CREAT)
            # Our own shared lock does not conflict: flock(2) converts it.
            others_wait = not _flock(waiting_fd, fcntl.LOCK_EX)
            _flock(waiting_fd, fcntl.LOCK_SH)
            return _Look((), waiting_fd, others_wait)
        except OSError as error:
            if slots:
                return _Look(slots, waiting_fd)
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
                return  # The first in line here tries again when the others do.
        self._freed.set()
        self._freed = trio.Event()

    async def _free(self, slot: Slot) -> None:
        await give_back(_unlock, slot.fd)
        self._ours.discard(slot.number)


def _unlock(fd: int) -> None:
    # Explicitly, because a guard that is about to exit may still have a copy of the descriptor.
    fcntl.flock(fd, fcntl.LOCK_UN)
    os.close(fd)


def _close_look(look: _Look) -> None:
    for slot in look.slots:
        _unlock(slot.fd)
    if look.waiting_fd is not None:
        os.close(look.waiting_fd)


def _flock(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
