"""Slots: the right to run one agent, counted for all processes of this machine together.

A slot is a lock (flock(2)) on one of `limit` files, so the kernel frees it whatever becomes of
its owner. The guard of a run holds the same lock until no process of the run is left: the limit
counts process trees, not intentions. Each nesting depth has slots of its own, or a parent that
waits for its nested dispatch would deadlock the pool.

In one process the order is first come, first served, and a freed slot is handed on at once,
unless another process says, by a shared lock on the file `waiting`, that it waits too.
"""

import contextlib
import errno
import fcntl
import os
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import trio

from agent_dispatch.errors import DispatchError
from agent_dispatch.files import make_private_directory

_POLL_S = (0.02, 0.06)
"""How often the first in line looks for a slot that another process has freed: a lock cannot be
waited for without a thread. Jittered, so that processes take turns."""

_SOON = 4
"""From this place on each step is told; before, every halving of the line: if every step were, a
long line would get as many messages, and writes of records, as the square of its length."""

OnPlace = Callable[[int], None]
"""Told the place in line, from 1: the first one, each of the last four, of the others some."""


class SlotsError(DispatchError):
    """The slot files cannot be created or locked; nothing was started."""


class Slot:
    """A held slot."""

    def __init__(self, number: int, fd: int) -> None:
        """Wrap the locked descriptor of slot `number`."""
        self.number = number
        self.fd = fd
        """To be held by the guard as well."""
        self.in_use = False
        """True while a process of the run may be left: then only the guard gives the slot back."""


class _Waiter:
    """A place in line."""

    def __init__(self, on_place: OnPlace) -> None:
        self._on_place = on_place
        self._told: int | None = None

    def move_to(self, place: int) -> None:
        if self._told is None or place <= max(self._told // 2, min(self._told - 1, _SOON)):
            self._told = place
            self._on_place(place)


class Slots:
    """The slots of one depth, as one process sees them; made once per service."""

    def __init__(self, directory: Path, depth: int) -> None:
        """Use `directory/DEPTH`, which is made on first use."""
        self._directory = directory / str(depth)
        self._line: list[_Waiter] = []
        self._head = trio.Lock()
        self._freed = trio.Event()
        self._handed_on: list[Slot] = []
        self._ours: set[int] = set()
        """The numbers of the slots that this process holds: not to be tried in vain."""
        self._waiting_fd = -1

    @contextlib.asynccontextmanager
    async def hold(self, limit: int, on_place: OnPlace) -> AsyncIterator[Slot]:
        """Hold one of `limit` slots for as long as the block runs.

        If cancelled while waiting, the place in line is given up.

        Raises:
            SlotsError: The files cannot be used.
        """
        slot = await self._acquire(limit, on_place)
        try:
            yield slot
        finally:
            self._release(slot)

    async def _acquire(self, limit: int, on_place: OnPlace) -> Slot:
        if not self._line and (slot := self._try(limit)) is not None:
            # Bounded by nature: one turn of the event loop.
            await trio.lowlevel.cancel_shielded_checkpoint()
            return slot
        waiter = _Waiter(on_place)
        self._line.append(waiter)
        self._tell_places()
        try:
            async with self._head:
                return await self._wait_as_head(limit)
        finally:
            self._line.remove(waiter)
            self._tell_places()
            if not self._line:
                self._give_back()

    async def _wait_as_head(self, limit: int) -> Slot:
        try:
            while True:
                if (slot := self._try(limit)) is not None:
                    return slot
                self._say_waiting()
                with trio.move_on_after(random.uniform(*_POLL_S)):
                    await self._freed.wait()
        finally:
            if self._waiting_fd >= 0:
                os.close(self._waiting_fd)
                self._waiting_fd = -1

    def _tell_places(self) -> None:
        for place, waiter in enumerate(self._line, start=1):
            waiter.move_to(place)

    def _try(self, limit: int) -> Slot | None:
        while self._handed_on:
            slot = self._handed_on.pop()
            if slot.number < limit:
                return slot
            self._close(slot)  # The limit was lowered meanwhile.
        for number in range(limit):
            if number in self._ours:
                continue
            fd = self._open(str(number))
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(fd)
            except OSError as error:
                os.close(fd)
                raise self._error(error) from error
            else:
                self._ours.add(number)
                return Slot(number, fd)
        return None

    def _release(self, slot: Slot) -> None:
        if slot.in_use:
            self._close(slot)  # The guard holds the lock until its tree is empty.
        elif self._line and not self._others_wait():
            self._handed_on.append(slot)
        else:
            # Explicitly: a guard about to exit may have a copy of the descriptor still.
            fcntl.flock(slot.fd, fcntl.LOCK_UN)
            self._close(slot)
            if self._line:
                return  # Others wait: the first in line here looks again with them.
        self._freed.set()
        self._freed = trio.Event()

    def _give_back(self) -> None:
        """Free what was handed on to somebody who then gave up."""
        while self._handed_on:
            self._close(self._handed_on.pop())

    def _close(self, slot: Slot) -> None:
        self._ours.remove(slot.number)
        os.close(slot.fd)

    def _say_waiting(self) -> None:
        if self._waiting_fd < 0:
            self._waiting_fd = self._open("waiting")
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(self._waiting_fd, fcntl.LOCK_SH | fcntl.LOCK_NB)

    def _others_wait(self) -> bool:
        """Whether another process has a shared lock on `waiting`, or that cannot be seen."""
        try:
            fd = self._waiting_fd if self._waiting_fd >= 0 else self._open("waiting")
        except SlotsError:
            # The slot is to be given back all the same; the next in line meets the error itself.
            return True
        try:
            # Our own shared lock does not conflict: flock(2) converts it.
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        else:
            return False
        finally:
            if fd == self._waiting_fd:
                self._say_waiting()
            else:
                os.close(fd)

    def _open(self, name: str) -> int:
        path = self._directory / name
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            return os.open(path, flags, 0o600)
        except FileNotFoundError:
            return self._open_in_new_directory(path, flags)
        except OSError as error:
            raise self._error(error) from error

    def _open_in_new_directory(self, path: Path, flags: int) -> int:
        try:
            make_private_directory(str(self._directory))
            return os.open(path, flags, 0o600)
        except OSError as error:
            raise self._error(error) from error

    def _error(self, error: OSError) -> SlotsError:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            remedy = "Raise the limit of open files (ulimit -n 4096), or let fewer runs go at once."
        elif error.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = "Free some space on its disk, or point AGENT_DISPATCH_JOBS_DIR elsewhere."
        else:
            place = self._directory.parent
            remedy = f"Make {place} writable, or point AGENT_DISPATCH_JOBS_DIR elsewhere."
        return SlotsError(
            f"The slots that limit concurrent runs cannot be used: {error}. Nothing was started."
            f" {remedy}"
        )
