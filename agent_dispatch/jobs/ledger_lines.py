"""The lines of the ledger: one file per local month, only appended to, read from the end."""

import os
import re
import time
from collections.abc import Iterator, Sequence

import msgspec

from agent_dispatch.files import (
    PRIVATE_FILE,
    Disk,
    names_in,
    open_private,
    opened_regular,
    sync_directory,
    write_all,
)
from agent_dispatch.model.dispatch import ErrorType
from agent_dispatch.model.ledger import LedgerLine

_MONTH_FILE = re.compile(r"\d{4}-\d{2}\.jsonl")
_CHUNK_BYTES = 256 * 1024
_OLD_IN_A_ROW = 100
"""Reading stops after so many old lines in a row: lines are nearly in order of time, and only those
of dead owners come late."""
_LATEST_AT = 1e11
"""In the year 5138; calendars have no days for much later times."""

_decoder: msgspec.json.Decoder[LedgerLine] = msgspec.json.Decoder(LedgerLine)


class LedgerLines:
    """The files `YYYY-MM.jsonl` of one ledger. The caller holds the ledger's lock to append."""

    def __init__(self, directory: str, disk: Disk) -> None:
        """Use `directory`."""
        self._directory = directory
        self._disk = disk

    def append(self, lines: Sequence[LedgerLine], *, durable: bool) -> None:
        """Add lines, each to the file of its month.

        Raises:
            OSError: Some were not added. Readers skip a partial line.
        """
        for line in lines:
            path = os.path.join(self._directory, f"{_month(line.at)}.jsonl")
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
            fd = open_private(path, flags, self._disk)
            try:
                size = self._disk.fstat(fd).st_size
                if size == 0:
                    # The umask may have cut the mode.
                    self._disk.fchmod(fd, PRIVATE_FILE)
                # A process that was killed may have left half a line.
                is_torn = size > 0 and self._disk.pread(fd, 1, size - 1) != b"\n"
                start = b"\n" if is_torn else b""
                write_all(fd, start + msgspec.json.encode(line) + b"\n", self._disk)
                if durable:
                    self._disk.fsync(fd)
            finally:
                self._disk.close(fd)
            if durable and size == 0:
                sync_directory(self._directory, self._disk)

    def newest_first(self, since: float) -> Iterator[LedgerLine]:
        """Read from the end back to about that time; some older lines may be among them.

        Raises:
            OSError: The files cannot be read.
        """
        oldest_month, old_in_a_row = f"{_month(since)}.jsonl", 0
        names = filter(_MONTH_FILE.fullmatch, names_in(self._directory, self._disk))
        for name in sorted(names, reverse=True):
            if name < oldest_month:
                return
            for text in self._backwards(os.path.join(self._directory, name)):
                try:
                    line = _decoder.decode(text)
                except ValueError:
                    continue  # Torn.
                if not 0 <= line.at <= _LATEST_AT:
                    continue  # Not ours.
                if line.error_type != ErrorType.LOST:
                    old_in_a_row = old_in_a_row + 1 if line.at < since else 0
                if old_in_a_row > _OLD_IN_A_ROW:
                    return
                yield line

    def _backwards(self, path: str) -> Iterator[bytes]:
        """Lines of a file from the last to the first, in chunks, as the file may be large."""
        with opened_regular(path, self._disk) as (fd, status):
            position, rest = status.st_size, b""
            while position:
                size = min(_CHUNK_BYTES, position)
                position -= size
                partial, *whole = (self._disk.pread(fd, size, position) + rest).split(b"\n")
                yield from filter(None, reversed(whole))
                rest = partial
            if rest:
                yield rest


def _month(at: float) -> str:
    return time.strftime("%Y-%m", time.localtime(max(at, 0)))
