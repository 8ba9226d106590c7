"""A disk that remembers what a power cut would leave of it.

Changes that were not synced may be lost: the content of a file since its last fsync(2), and names
since the last fsync of their directory. They may also survive. So a cut is tried in two ways: none
of these changes survives, or all names do, but no content. Real file systems lie in between.
"""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.jobs.support import Disturbed

Names = dict[str, dict[str, int]]
"""The entries of each directory, by inode."""


class PowerCutDisk(Disturbed):
    """Makes all system calls, and remembers what is durable."""

    def __init__(self, root: Path) -> None:
        """Watch `root`, which exists, is empty, and is durable itself."""
        self._root = str(root)
        self._content: dict[int, bytes] = {}
        self._names: Names = {self._root: {}}
        self.calls = 0

    def call(self, name: str, real: Callable[..., Any], *args: Any) -> Any:
        self.calls += 1
        answer = real(*args)
        if name == "open" and args[1] & os.O_EXCL:
            # The inode was another file's before.
            self._content.pop(os.fstat(answer).st_ino, None)
        if name == "fsync":
            self._synced(*args)
        return answer

    def _synced(self, fd: int) -> None:
        status = os.fstat(fd)
        path = os.readlink(f"/proc/self/fd/{fd}")
        if stat.S_ISDIR(status.st_mode):
            self._names[path] = _names_in(path)
        else:
            self._content[status.st_ino] = Path(path).read_bytes()

    def after_a_cut(self, target: Path, *, names_survive: bool) -> None:
        """Write to `target` what a power cut would leave of the root."""
        names = _all_names(self._root) if names_survive else self._names
        kinds = {inode: mode for _, _, inode, mode in _walk(self._root)}
        self._restore(self._root, target, names, kinds)

    def _restore(self, source: str, target: Path, names: Names, kinds: dict[int, int]) -> None:
        target.mkdir(mode=0o700)
        for name, inode in names.get(source, {}).items():
            # It was a file and has been removed; the store never removes directories.
            mode = kinds.get(inode, stat.S_IFREG)
            if stat.S_ISDIR(mode):
                self._restore(os.path.join(source, name), target / name, names, kinds)
            elif stat.S_ISFIFO(mode):
                os.mkfifo(target / name, 0o600)
            else:
                (target / name).write_bytes(self._content.get(inode, b""))


def _names_in(directory: str) -> dict[str, int]:
    return {entry.name: entry.inode() for entry in os.scandir(directory)}


def _walk(root: str) -> list[tuple[str, str, int, int]]:
    found = []
    for directory, folders, files in os.walk(root):
        for name in (*folders, *files):
            status = os.lstat(os.path.join(directory, name))
            found.append((directory, name, status.st_ino, status.st_mode))
    return found


def _all_names(root: str) -> Names:
    names: Names = {}
    for directory, name, inode, _ in _walk(root):
        names.setdefault(directory, {})[name] = inode
    return names
