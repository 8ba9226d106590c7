"""Whether a change widens the rights of an agent; then a person has to decide."""

import math
import shlex
from collections.abc import Mapping
from typing import Any

from agent_dispatch.errors import DispatchError
from agent_dispatch.model.config import EffectiveAgent
from agent_dispatch.model.next_step import run
from agent_dispatch.model.rights import Rights

_BYPASS = "bypassPermissions"
_MODES: Mapping[str, int] = {
    "plan": 0,
    "manual": 1,
    "default": 1,
    "dontAsk": 1,
    "acceptEdits": 2,
    "auto": 3,
    _BYPASS: 4,
}
"""How much each permission mode allows."""


class WideningError(DispatchError):
    """A change would widen an agent's rights without the approval of a person."""

    def __init__(
        self, agent: str, changes: Mapping[str, str], command: str, *, is_nested: bool
    ) -> None:
        """Refuse a change.

        Args:
            changes: The changes in words, by the keys that widen rights.
            command: The shell command that makes the change; empty if there is none.
            is_nested: The change was requested inside a dispatch.
        """
        why = (
            "A dispatched agent does not widen rights (AGENT_DISPATCH_DEPTH is set)."
            if is_nested
            else "That is for your user to decide."
        )
        super().__init__(
            f"This would give agent {agent!r} more rights ({', '.join(changes)}). {why} Nothing was"
            " changed.",
            *((run(command, agent),) if command else ()),
        )
        self.agent = agent
        self.changes = changes
        self.is_nested = is_nested


def rights_of(agent: EffectiveAgent) -> Rights:
    """Return the rights of an agent, inherited ones included."""
    return Rights(
        permission_mode=agent.permission_mode or "default",
        allowed_tools=agent.allowed_tools or (),
        disallowed_tools=agent.disallowed_tools or (),
        max_budget_usd=agent.max_budget_usd,
    )


def changes_in(before: Rights, after: Rights, keys: list[str]) -> dict[str, str]:
    """Describe the changes of some keys for a person."""
    return {
        key: f"{_in_words(getattr(before, key))} -> {_in_words(getattr(after, key))}"
        for key in keys
    }


def _in_words(value: object) -> str:
    match value:
        case tuple():
            return ", ".join(map(str, value)) or "none"
        case None:
            return "no limit"
        case _:
            return str(value)


def widened(before: Rights, after: Rights) -> list[str]:
    """Return the keys in which `after` allows more than `before`."""
    keys = {
        "permission_mode": _is_wider_mode(before.permission_mode, after.permission_mode),
        "allowed_tools": bool(_added_rules(before.allowed_tools, after.allowed_tools)),
        "disallowed_tools": not set(before.disallowed_tools) <= set(after.disallowed_tools),
        "max_budget_usd": _cap(after.max_budget_usd) > _cap(before.max_budget_usd),
    }
    return [key for key, is_wider in keys.items() if is_wider]


def widened_by_adding(inherited: Rights, added: Rights) -> list[str]:
    """Return the keys in which a new agent has more rights than it inherits.

    An inherited `bypassPermissions` counts as well: it would allow anything in the new directory.
    """
    keys = widened(inherited, added)
    if added.permission_mode == _BYPASS and "permission_mode" not in keys:
        keys.insert(0, "permission_mode")
    return keys


def command_for(words: list[str], values: Mapping[str, Any]) -> str:
    """Return the shell command with which a person can make a change.

    Args:
        words: The first arguments of the command.
        values: The changed keys with the values of the file; None clears a key.
    """
    options = [
        f"--{key.replace('_', '-')}={_as_text(key, value)}"
        for key, value in values.items()
        if key != "directory"
    ]
    return shlex.join(["agent-dispatch", *words, *options])


def _as_text(key: str, value: object) -> str:
    match value:
        case None:
            return "none"
        case list() if key == "verify":
            return shlex.join(value)
        case list():
            return ",".join(map(str, value)) or "[]"
        case _:
            return str(value)


def _is_wider_mode(before: str, after: str) -> bool:
    if before == after:
        return False
    # An unknown new mode may allow anything; an unknown old mode counts as the narrowest.
    return after not in _MODES or _MODES[after] > _MODES.get(before, 0)


def _added_rules(before: tuple[str, ...], after: tuple[str, ...]) -> list[str]:
    return [
        rule
        for rule in after
        # A bare tool name allows the tool with any arguments.
        if rule not in before and rule.partition("(")[0] not in before
    ]


def _cap(budget_usd: float | None) -> float:
    return math.inf if budget_usd is None else budget_usd
