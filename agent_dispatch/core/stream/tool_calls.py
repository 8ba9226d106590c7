"""Counts the tool calls of a run, with those of its subagents, while the events arrive."""

from typing import NamedTuple

from agent_dispatch.core.stream.events import AssistantEvent, SystemEvent, UserEvent
from agent_dispatch.core.stream.seen import CallsMade

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
        # The calls of a subagent are judged one by one.
        "Task",
        "Agent",
    }
)
"""Tools that change nothing. Bash, MCP tools and unknown tools may change something."""
_WRITERS = frozenset({"Write", "Edit", "NotebookEdit"})

_MAX_CALLS = 20_000
"""Calls that are remembered by their ids; later ones are only counted."""
_MAX_TASKS = 1000
_MAX_NAMES = 100
"""Different tools that are counted by name."""
_MAX_PATHS = 200
_ID_CHARS = 200
_NAME_CHARS = 200
_PATH_CHARS = 4096


class _Call(NamedTuple):
    tool: str
    path: str
    """Set for tools that write a file."""


class _Reported:
    """The calls of one subagent, by the numbers that the CLI reports."""

    def __init__(self) -> None:
        self.by_run: dict[str, int] = {}
        self.names: dict[str, int] = {}


class ToolCalls:
    """Counts calls, and remembers the files that were written.

    The calls of a subagent's own subagents are not in the stream (measured with 2.1.332). The CLI
    reports only their number, and now and then the name of the last one.
    """

    def __init__(self) -> None:
        self._calls: dict[str, _Call] = {}
        self._below: dict[str, int] = {}
        """Calls of each subagent in the stream, by the id of the call that started the subagent."""
        self._reported: dict[str, _Reported] = {}
        """By the same id."""
        self._denied: set[str] = set()
        self._tools: dict[str, int] = {}
        self._total = 0
        self._read_only = True
        self._written: dict[str, None] = {}

    def made(self) -> CallsMade:
        """Return the calls so far."""
        tools, total, read_only = dict(self._tools), self._total, self._read_only
        hidden = 0
        for call_id, reported in self._reported.items():
            missing = sum(reported.by_run.values()) - self._below.get(call_id, 0)
            if missing <= 0:
                continue
            hidden += missing
            # The reported names include the calls in the stream, which are counted already.
            named = sum(reported.names.values()) if call_id not in self._below else 0
            read_only &= named >= missing and reported.names.keys() <= _READ_ONLY
            for name, count in reported.names.items() if named else ():
                tools[name] = tools.get(name, 0) + count
        if hidden:
            # The hidden calls include denied ones.
            total += max(hidden - len(self._denied - self._calls.keys()), 0)
        counted = {name: count for name, count in tools.items() if count}
        return CallsMade(total, counted, tuple(self._written), read_only)

    def add_task(self, event: SystemEvent) -> None:
        """Take in the number of calls that a subagent has made."""
        if event.usage is None or event.usage.tool_uses <= 0 or not event.tool_use_id:
            return
        if len(self._reported) >= _MAX_TASKS:
            self._read_only = False
            return
        reported = self._reported.setdefault(event.tool_use_id[:_ID_CHARS], _Reported())
        run = (event.run_id or event.task_id or "")[:_ID_CHARS]
        known = reported.by_run.get(run, 0)
        if event.usage.tool_uses <= known or (not known and len(reported.by_run) >= _MAX_TASKS):
            return
        reported.by_run[run] = event.usage.tool_uses
        name = (event.last_tool_name or "")[:_NAME_CHARS]
        if name and (name in reported.names or len(reported.names) < _MAX_NAMES):
            reported.names[name] = reported.names.get(name, 0) + 1

    def add_assistant(self, event: AssistantEvent) -> None:
        """Count the calls in a message; a repeated call, by its id, counts once."""
        for block in event.message.content:
            if block.type != "tool_use" or not block.name:
                continue
            tool, call_id = block.name[:_NAME_CHARS], block.id[:_ID_CHARS]
            self._read_only &= tool in _READ_ONLY
            if call_id in self._calls:
                continue
            if event.parent_tool_use_id and len(self._below) < _MAX_CALLS:
                parent = event.parent_tool_use_id[:_ID_CHARS]
                self._below[parent] = self._below.get(parent, 0) + 1
            if call_id and len(self._calls) < _MAX_CALLS:
                path = block.input.file_path or block.input.notebook_path
                self._calls[call_id] = _Call(tool, path if tool in _WRITERS else "")
            if call_id not in self._denied:
                self._count(tool, 1)

    def add_user(self, event: UserEvent) -> None:
        """Remember the files of calls that succeeded, and the calls that were rejected."""
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
        """Take a denied call out of the count."""
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
