"""Several dispatches at once: what is asked, and what came of each."""

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
    """What came of several dispatches."""

    individual_results: list[DispatchResult]
    """In the order of the request."""
    aggregated: DispatchResult | None = None
    """What one agent made of them all; None if none was asked."""


class ParallelAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of `dispatch_parallel` with `aggregate`; without, it is the list alone."""

    individual_results: list[DispatchResult | ResultRef]
    aggregated: DispatchResult
