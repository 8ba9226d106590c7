"""Files that have served, and wait under names of their own for the next who needs one.

Making a file soon after many were removed is slow on some file systems: ext4 without a journal
passes over each inode that was freed within the last minute, so a new file took up to 2 ms after a
few hundred dispatches (measured). So what is empty, and the same for everybody, is moved away
instead of removed, and moved back instead of made.

A spare is nobody's: anyone may take it for litter and remove it, and then a file is made.
"""

import contextlib
import os
from collections import deque

from agent_dispatch.jobs.disk import Disk, remove_quietly

KEPT = 8
"""How many of a kind; one is needed more often than many end at once."""


class Spares:
    """Spare files of one kind in one directory. Safe to use from several threads."""

    def __init__(self, directory: str, ending: str, disk: Disk, *, kept: int = KEPT) -> None:
        """Keep up to `kept` of them in `directory`, hidden, with names that end in `ending`."""
        self._directory = directory
        self._ending = ending
        self._disk = disk
        self._kept = kept
        self._are_wanted = False
        self._paths: deque[str] = deque()

    def put(self, path: str) -> None:
        """Move a file away that has served.

        It is removed if there are enough, nobody here has ever wanted one, or it cannot be moved:
        a full disk may have no room for a name.

        Raises:
            FileNotFoundError: It was not there.
            OSError: It stays where it was.
        """
        wanted = self._are_wanted and len(self._paths) < self._kept
        if not (wanted and self._move_away(path)):
            self._disk.unlink(path)

    def _move_away(self, path: str) -> bool:
        spare = os.path.join(self._directory, f".{os.urandom(8).hex()}{self._ending}")
        try:
            self._disk.rename(path, spare)
        except OSError:
            return False  # Removing it says what is wrong, if it cannot be done either.
        self._paths.append(spare)
        return True

    def take(self) -> str | None:
        """Give the path of a spare to its new owner; None: there is none.

        It may have been taken for litter, and be gone when it is used.
        """
        self._are_wanted = True
        try:
            return self._paths.pop()
        except IndexError:
            return None

    def give_back(self, spare: str) -> None:
        """Keep one that was taken and cannot be used yet; it is the last to be taken again."""
        self._paths.appendleft(spare)

    def move_to(self, path: str) -> bool:
        """Move a spare to `path`, in place of what is there; False if there is none to be had."""
        if (spare := self.take()) is None:
            return False
        try:
            self._disk.rename(spare, path)
        except OSError:
            remove_quietly(self._disk, spare)
            return False
        return True

    def link_to(self, path: str) -> None:
        """Move a spare to `path` if there is one, and nothing is there yet."""
        if (spare := self.take()) is not None:
            # Where there are no hard links, or it is gone, `path` is still to be made.
            with contextlib.suppress(OSError):
                self._disk.link(spare, path)
            remove_quietly(self._disk, spare)

    def close(self) -> None:
        """Remove them all; what stays is litter."""
        while (spare := self.take()) is not None:
            remove_quietly(self._disk, spare)
