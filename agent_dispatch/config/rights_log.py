"""The log of changes of rights, beside the configuration: when, what, and by which way.

A line per change, appended and never rewritten. An edit by hand is not in it.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from agent_dispatch.files import NOT_A_FILE, open_private, opened_regular, read_all, write_all
from agent_dispatch.model.rights import RIGHTS_KEYS, ChangedBy, RightsChange

_MAX_BYTES = 64 << 20
_SHOWN = 100
"""The newest changes of one agent."""


class _Line(RightsChange, frozen=True, kw_only=True):
    agent: str


_LINE: msgspec.json.Decoder[_Line] = msgspec.json.Decoder(_Line)


class RightsLog:
    """The changes of rights in one configuration. All of it blocks."""

    def __init__(self, config: Path) -> None:
        """Log beside `config`; the file is made with the first change."""
        self._path = str(config.with_suffix(".rights.jsonl"))

    def add(
        self,
        agent: str,
        old: Mapping[str, Any],
        new: Mapping[str, Any],
        by: ChangedBy,
        at: float,
    ) -> None:
        """Log what changed from the table `old` of an agent to `new`.

        Raises:
            OSError: It cannot be logged.
        """
        lines = [
            _Line(agent=agent, at=at, key=key, old=old.get(key), new=new.get(key), by=by)
            for key in RIGHTS_KEYS
            if old.get(key) != new.get(key)
        ]
        if not lines:
            return
        fd = open_private(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            # A line feed first, in case the last writer was cut off; and one write, so that
            # processes do not mix their lines.
            write_all(fd, b"".join(b"\n" + msgspec.json.encode(line) for line in lines) + b"\n")
            os.fsync(fd)
        finally:
            os.close(fd)

    def of(self, agent: str) -> list[RightsChange]:
        """The newest changes of an agent, oldest first; what cannot be read is left out."""
        try:
            with opened_regular(self._path) as (fd, _):
                content = read_all(fd, _MAX_BYTES)
        except OSError as error:
            if isinstance(error, FileNotFoundError) or error.errno in NOT_A_FILE:
                return []
            raise
        found: list[RightsChange] = []
        for text in content.split(b"\n"):
            with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                line = _LINE.decode(text)
                if line.agent == agent:
                    found.append(
                        RightsChange(
                            at=line.at, key=line.key, old=line.old, new=line.new, by=line.by
                        )
                    )
        return found[-_SHOWN:]
