"""The rights of agents: which changes need a person, and a log of the changes that were made.

The log is a file beside the configuration, with a line per change, appended and never rewritten.
Edits by hand are not in it.
"""

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from agent_dispatch.config.snapshot import resolve
from agent_dispatch.core.agents.rights import (
    WideningError,
    changes_in,
    rights_of,
    widened,
    widened_by_adding,
)
from agent_dispatch.errors import NOT_JSON
from agent_dispatch.files import NOT_A_FILE, open_private, opened_regular, read_all, write_all
from agent_dispatch.model.config import AgentConfig, Config, Settings
from agent_dispatch.model.rights import RIGHTS_KEYS, ChangedBy, Rights, RightsChange

_MAX_BYTES = 64 << 20
_SHOWN = 100
"""The newest changes of one agent."""

WITHOUT_RIGHTS = AgentConfig(directory="")
"""An agent that has only the rights that it inherits."""


def widening(
    before: AgentConfig | None,
    after: AgentConfig,
    settings: Settings,
    new_settings: Settings | None = None,
) -> dict[str, str]:
    """Describe each key by which an agent would get more rights.

    Args:
        before: The agent today; None if it is new.
        after: The agent after the change.
        settings: What it inherits today.
        new_settings: What it inherits after the change, if that changes too.
    """
    old = _rights(before or WITHOUT_RIGHTS, settings)
    new = _rights(after, new_settings or settings)
    keys = widened_by_adding(old, new) if before is None else widened(old, new)
    changes = changes_in(old, new, keys)
    checked_by = before.verify if before is not None else None
    if after.verify and after.verify != checked_by:
        # We run this command, and it needs no permission.
        changes["verify"] = f"{checked_by or 'none'} -> {after.verify}"
    return changes


def require_person(
    name: str,
    wider: Mapping[str, str],
    *,
    by: ChangedBy,
    settings: Settings,
    is_nested: bool,
    command: str = "",
) -> None:
    """Refuse a change that gives more rights, unless a person makes it.

    Args:
        name: The agent's.
        wider: From `widening`.
        by: Who asks for the change.
        settings: Of today: they may let models give rights.
        is_nested: Whether a dispatched agent asks.
        command: How a person makes the change in a shell.

    Raises:
        WideningError: The change needs a person.
    """
    may_widen = by is not ChangedBy.MCP or settings.mcp_may_widen_permissions
    if wider and (is_nested or not may_widen):
        raise WideningError(name, wider, command, is_nested=is_nested)


def check_import(before: Config, after: Config, *, is_nested: bool) -> None:
    """Refuse an import by a dispatched agent that would give any agent more rights.

    Raises:
        WideningError: It would.
    """

    def check(name: str, wider: Mapping[str, str]) -> None:
        require_person(name, wider, by=ChangedBy.CLI, settings=before.settings, is_nested=is_nested)

    for name, agent in after.agents.items():
        check(name, widening(before.agents.get(name), agent, before.settings, after.settings))
    wider = widening(WITHOUT_RIGHTS, WITHOUT_RIGHTS, before.settings, after.settings)
    if after.settings.mcp_may_widen_permissions > before.settings.mcp_may_widen_permissions:
        wider["mcp_may_widen_permissions"] = "false -> true"
    check("[settings]", wider)


def _rights(agent: AgentConfig, settings: Settings) -> Rights:
    return rights_of(resolve("", agent, settings, Path()))


class _Line(RightsChange, frozen=True, kw_only=True):
    agent: str


_LINE: msgspec.json.Decoder[_Line] = msgspec.json.Decoder(_Line)


class RightsLog:
    """The changes of rights in one configuration. All of it blocks."""

    def __init__(self, config: Path) -> None:
        """Log beside `config`; the file is made with the first change."""
        self._path = str(config.with_suffix(".rights.jsonl"))

    def add(
        self, agent: str, old: Mapping[str, Any], new: Mapping[str, Any], by: ChangedBy
    ) -> list[str]:
        """Log what changed from the table `old` of an agent to `new`.

        Returns:
            A warning, if the change could not be logged.
        """
        now = time.time()
        lines = [
            _Line(agent=agent, at=now, key=key, old=old.get(key), new=new.get(key), by=by)
            for key in RIGHTS_KEYS
            if old.get(key) != new.get(key)
        ]
        try:
            if lines:
                self._append(lines)
        except OSError as error:
            return [f"The change of rights could not be logged: {error}"]
        return []

    def _append(self, lines: list[_Line]) -> None:
        fd = open_private(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            # A line feed first, in case the last writer was cut off; and one write, so that
            # processes do not mix their lines.
            write_all(fd, b"".join(b"\n" + msgspec.json.encode(line) for line in lines) + b"\n")
            os.fsync(fd)
        finally:
            os.close(fd)

    def changes_of(self, agent: str) -> list[RightsChange]:
        """Return the newest changes of an agent, oldest first; unreadable lines are left out.

        Raises:
            OSError: The file exists and cannot be read.
        """
        try:
            with opened_regular(self._path) as (fd, _):
                content = read_all(fd, _MAX_BYTES)
        except OSError as error:
            if isinstance(error, FileNotFoundError) or error.errno in NOT_A_FILE:
                return []
            raise
        found: list[RightsChange] = []
        for text in content.split(b"\n"):
            with suppress(*NOT_JSON):
                line = _LINE.decode(text)
                if line.agent == agent:
                    found.append(
                        RightsChange(
                            at=line.at, key=line.key, old=line.old, new=line.new, by=line.by
                        )
                    )
        return found[-_SHOWN:]
