"""Several dispatches at once: their request and their results."""

from typing import Any

import msgspec

from agent_dispatch.model.dispatch import DispatchResult
from agent_dispatch.model.replies import ResultRef


class DispatchItem(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One item of `dispatches`, as callers write it."""

    agent: str
    task: str
    context: str = ""
    caller: str = ""
    goal: str = ""
    group: str = ""
    response_format: str = ""
    json_schema: dict[str, Any] | str = ""
    """A JSON Schema, as an object or as its JSON."""
    return_ref: bool = False
    summary_chars: int = 500
    timeout_seconds: int = 0
    fresh: bool = False
    verify: bool = False
    model: str = ""
    effort: str = ""


class ParallelResult(msgspec.Struct, frozen=True, kw_only=True):
    """The results of several dispatches."""

    individual_results: list[DispatchResult]
    """In the order of the request."""
    aggregated: DispatchResult | None = None
    """The combined answer of one agent; None if none was requested."""


class ParallelAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of `dispatch_parallel` with `aggregate`; without it, only the list is returned."""

    individual_results: list[DispatchResult | ResultRef]
    aggregated: DispatchResult
