"""The declaration of a tool, and its entry in `tools/list`; knows nothing of the MCP library."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import msgspec

from agent_dispatch.model.dispatch import OnProgress
from agent_dispatch.run.service import Service

LARGE_ANSWER_CHARS = 100_000
"""Claude Code cuts at 50,000 by default, and a result of 40,000 escaped as JSON may be longer."""
_HINT_DEFAULTS: Mapping[str, bool] = {
    "readOnlyHint": False,
    "destructiveHint": True,
    "idempotentHint": False,
    "openWorldHint": True,
}


class Params(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The arguments of a tool."""


ParamsT = TypeVar("ParamsT", bound=Params)
Run = Callable[[Service, ParamsT, OnProgress], Awaitable[object]]
"""Runs a tool; the answer is anything that msgspec can encode, or `WithWarnings`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool(Generic[ParamsT]):
    """One tool: its entry in the list of tools, and the functions that do its work."""

    name: str
    title: str
    description: str
    params: type[ParamsT]
    """Its arguments; field descriptions are `Annotated[..., msgspec.Meta(description=...)]`."""
    run: Run[ParamsT]
    described_by: type[msgspec.Struct] | None = None
    """The arguments of another tool, whose description covers those that both tools have."""
    foreign_arguments: Mapping[str, str] = field(default_factory=dict)
    """Arguments that only other tools have, each with a hint for the error message."""
    read_only: bool = False
    """Claude Code runs only read-only tools in parallel (measured with 2.1.330)."""
    destructive: bool = False
    idempotent: bool = False
    open_world: bool = False
    reports_progress: bool = False
    creates_config: bool = False
    """Works although the configuration that the environment names does not exist yet."""
    run_detached: Run[ParamsT] | None = None
    """Does the same as `run`, as a background job that goes on if the wait is cancelled. Only tools
    that wait for an agent have it; their callers may leave early, or get a task."""
    agents_of: Callable[[ParamsT], Sequence[str]] | None = None
    """The agents of the background job, if it has several: one worker must reach them all."""
    run_granted: Run[ParamsT] | None = None
    """Does the same as `run`, after a user has agreed that it gives an agent more rights."""
    wait_at_most: Callable[[ParamsT, float], ParamsT] | None = None
    """Shortens the wait in the arguments to at most this many seconds."""
    large_answers: bool = False
    """The client should show answers of up to `LARGE_ANSWER_CHARS` whole."""

    def listing(self) -> dict[str, Any]:
        """Return its entry in `tools/list`, as it is on the wire."""
        # Claude Code defers the tools of a server behind a search unless told otherwise.
        meta: dict[str, Any] = {"anthropic/alwaysLoad": True}
        if self.large_answers:
            meta["anthropic/maxResultSizeChars"] = LARGE_ANSWER_CHARS
        return {
            "name": self.name,
            "title": self.title,
            "description": self.description,
            "inputSchema": input_schema(self.params, self.described_by),
            "annotations": self._annotations(),
            **({"execution": {"taskSupport": "optional"}} if self.run_detached else {}),
            "_meta": meta,
        }

    def _annotations(self) -> dict[str, bool]:
        """Return the hints that differ from the defaults of MCP, to keep the list small."""
        hints = {"readOnlyHint": self.read_only, "openWorldHint": self.open_world}
        if not self.read_only:  # They mean nothing there.
            hints |= {"destructiveHint": self.destructive, "idempotentHint": self.idempotent}
        return {hint: value for hint, value in hints.items() if value is not _HINT_DEFAULTS[hint]}


@dataclass(frozen=True, slots=True)
class WithWarnings:
    """A list that a tool answers, with warnings, for example about entries that were skipped."""

    items: Sequence[object]
    warnings: Sequence[str]


def input_schema(
    params: type[msgspec.Struct], described_by: type[msgspec.Struct] | None = None
) -> dict[str, Any]:
    """Return the schema of a tool's arguments, as small as possible.

    Defaults that are empty, 0 or false are left out: the description says what they mean.

    Args:
        params: The arguments.
        described_by: The arguments of another tool. Those that are the same there are listed
            without their description.
    """
    schema = _object_schema(params)
    other_fields = _object_schema(described_by)["properties"] if described_by else {}
    for name, field_schema in schema["properties"].items():
        if field_schema == other_fields.get(name):
            field_schema.pop("description", None)
        if not field_schema.get("default", True):
            del field_schema["default"]
    return schema


def _object_schema(params: type[msgspec.Struct]) -> dict[str, Any]:
    """Return the schema with an object at its root, as MCP requires."""
    schema = msgspec.json.schema(params)
    root: dict[str, Any] = schema["$defs"][schema["$ref"].rpartition("/")[2]]
    # The tool has its own title and description.
    return {key: value for key, value in root.items() if key not in ("title", "description")}
