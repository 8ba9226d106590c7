"""Shortens a long list of agents: a client shows its model only a limited number of characters."""

import json
from collections.abc import Sequence
from typing import Any

import msgspec

from agent_dispatch.core.text import clip
from agent_dispatch.model.agent import AgentSummary
from agent_dispatch.server.inline.result import INLINE_CHARS

NOTE_FIELD = "shortened"
"""In the first row of a shortened list: what is missing, and how to see it."""

_NOTE_CHARS = 400
# Fields that help least to choose an agent go first. Names always stay.
_LEFT_OUT_IN_TURN = (
    ("allowed_tools", "disallowed_tools", "permission_mode"),
    ("has_claude_md", "has_mcp_config"),
    ("dbs", "stacks"),
    ("directory",),
    ("mcp_servers",),
    ("capabilities",),
    ("groups",),
)
_TEXT_CHARS_BEFORE = 200
_TEXT_CHARS_IN_TURN = (120, 80, 60, 40, 20, 0)

Row = dict[str, Any]


def fit_agents(agents: Sequence[AgentSummary]) -> Sequence[AgentSummary] | list[Row]:
    """Shorten a list of agents to what goes out with one call, as far as the names allow.

    Returns:
        `agents` as they are if they fit; else rows without some fields, the first of them with a
        note that says which, and how to see them.
    """
    rows: list[Row] = msgspec.to_builtins(agents)
    if _size(rows) <= INLINE_CHARS:
        return agents
    room = INLINE_CHARS - _NOTE_CHARS
    left_out: list[str] = []
    rows = [_with_texts_cut(row, _TEXT_CHARS_BEFORE) for row in rows]
    for names in _LEFT_OUT_IN_TURN:
        if _size(rows) <= room:
            break
        rows = [{key: row[key] for key in row if key not in names} for row in rows]
        left_out += names
    if _size(rows) > room:
        rows = [{key: row[key] for key in row if row[key] is not True} for row in rows]
        left_out.append("healthy where it is true")
    for chars in _TEXT_CHARS_IN_TURN:
        if _size(rows) <= room:
            break
        rows = [_with_texts_cut(row, chars) for row in rows]
    missing = f" Left out: {', '.join(left_out)}." if left_out else ""
    rows[0][NOTE_FIELD] = (
        f"This list of {len(rows)} agents is shortened; long texts are cut.{missing}"
        " inspect_agent(name) shows one agent in full, `agent-dispatch list` in a shell all."
    )
    return rows


def _with_texts_cut(row: Row, chars: int) -> Row:
    """Cut the texts of a row to `chars` characters; leave them out for 0."""
    cut = dict(row)
    for key in ("problem", "description"):
        text = row.get(key, "")
        if not chars:
            cut.pop(key, None)
        elif text:
            cut[key] = clip(text, chars)
    return cut


def _size(rows: list[Row]) -> int:
    """Count characters, as the client does. File names may contain unpaired surrogates."""
    return len(json.dumps(rows, ensure_ascii=False, separators=(",", ":")))
