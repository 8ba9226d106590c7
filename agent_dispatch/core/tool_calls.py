"""The tool calls of a run, counted while its events arrive; subagents' calls are among them."""

from typing import NamedTuple

from agent_dispatch.core.event_types import AssistantEvent, UserEvent
from agent_dispatch.core.report import CallsMade

_READ_ONLY = frozenset(
    {
        "Read",
        "Grep",
        "Glob",
        "WebFetch",
        "WebSearch",
        "TodoWrite",
        "ToolSearch",
        "StructuredOutput",
        # The calls of a subagent are events of their own, and each of them is looked at.
        "Task",
        "Agent",
    }
)
"""Tools that change nothing. Bash, MCP tools and tools that we do not know may."""
_WRITERS = frozenset({"Write", "Edit", "NotebookEdit"})

_MAX_CALLS = 20_000
"""Calls that are known by their ids; later ones are only counted."""
_MAX_NAMES = 100
"""Different tools that are counted by name."""
_MAX_PATHS = 200
_ID_CHARS = 200
_NAME_CHARS = 200
_PATH_CHARS = 4096


class _Call(NamedTuple):
    tool: str
    path: str
    """Of a tool that writes a file."""


class ToolCalls:
    """Counts calls, and remembers the files that were written."""

    def __init__(self) -> None:
        self._calls: dict[str, _Call] = {}
        self._denied: set[str] = set()
        self._tools: dict[str, int] = {}
        self._total = 0
        self._read_only = True
        self._written: dict[str, None] = {}

    def made(self) -> CallsMade:
        """Return what was counted so far."""
        tools = {name: count for name, count in self._tools.items() if count}
        return CallsMade(self._total, tools, tuple(self._written), self._read_only)

    def add_assistant(self, event: AssistantEvent) -> None:
        """Count the calls in a message; one that comes again, by its id, is counted once."""
        for block in event.message.content:
            if block.type != "tool_use" or not block.name:
                continue
            tool, call_id = block.name[:_NAME_CHARS], block.id[:_ID_CHARS]
            self._read_only &= tool in _READ_ONLY
            if call_id in self._calls:
                continue
            if call_id and len(self._calls) < _MAX_CALLS:
                path = block.input.file_path or block.input.notebook_path
                self._calls[call_id] = _Call(tool, path if tool in _WRITERS else "")
            if call_id not in self._denied:
                self._count(tool, 1)

    def add_user(self, event: UserEvent) -> None:
        """Remember the files of calls that succeeded, and which calls did not run."""
        for meta in event.tool_result_meta:
            decision = meta.permission_decision
            if decision is not None and decision.decision == "reject":
                self.deny(meta.id)
        for block in event.message.content:
            if block.type != "tool_result" or block.is_error:
                continue
            call = self._calls.get(block.tool_use_id[:_ID_CHARS])
            if call and call.path and len(call.path) <= _PATH_CHARS:
                self._written.setdefault(call.path)
                if len(self._written) > _MAX_PATHS:
                    self._written.popitem()

    def deny(self, call_id: str) -> None:
        """Do not count a call: it was denied."""
        call_id = call_id[:_ID_CHARS]
        if not call_id or call_id in self._denied or len(self._denied) >= _MAX_CALLS:
            return
        self._denied.add(call_id)
        if (call := self._calls.get(call_id)) is not None:
            self._count(call.tool, -1)

    def _count(self, tool: str, step: int) -> None:
        self._total += step
        if tool in self._tools or len(self._tools) < _MAX_NAMES:
            self._tools[tool] = self._tools.get(tool, 0) + step
