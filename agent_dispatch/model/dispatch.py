"""A dispatch: its request, its progress, and its result."""

from collections.abc import Callable
from enum import StrEnum
from typing import Any

import msgspec

from agent_dispatch.model.next_step import NextStep
from agent_dispatch.model.question import Question

COST_DECIMALS = 6
"""Of amounts in US dollars; the CLI's sums of binary fractions have more."""


class ErrorType(StrEnum):
    """Why a dispatch did not succeed; callers branch on it."""

    PERMISSION = "permission"
    TIMEOUT = "timeout"
    RECURSION = "recursion"
    NOT_FOUND = "not_found"
    BUDGET = "budget"
    AUTH = "auth"
    USAGE_LIMIT = "usage_limit"
    CANCELLED = "cancelled"
    LOST = "lost"
    UNREACHABLE = "unreachable"
    """The caller cannot reach the host; the owner of a job never reports this."""
    SCHEMA = "schema"
    UNVERIFIED = "unverified"
    CLI_ERROR = "cli_error"


class DispatchRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One task for one agent; `core.request.checks` checks it before anything starts."""

    agent: str
    task: str
    context: str = ""
    caller: str = ""
    goal: str = ""
    group: str = ""
    """A group that the agent is a member of; empty for none."""
    response_format: str = ""
    """Empty for text, `json` for one JSON value."""
    json_schema: str = ""
    """The JSON Schema of the answer, as JSON; empty for none."""
    timeout_s: float | None = None
    """Seconds of running, queueing not counted; None: the agent's own timeout."""
    session_id: str | None = None
    """The session to resume; None: a new one."""
    model: str = ""
    """Instead of the agent's own; empty for the agent's own."""
    effort: str = ""
    """Instead of the agent's own, like `model`."""
    verify: bool = False
    """Run the agent's `verify` command, as `verify_always` of the agent does."""
    words_only: bool = False
    """It asks only for words about what other agents said: a turn of a dialogue, or a combined
    answer. Then `verify_always` does not apply."""


class CallOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How to answer a dispatch, apart from its request."""

    ref: bool = False
    """The caller gets the id instead of the answer, so the record is kept until `gc`."""
    summary_chars: int | None = None
    """The length of the summary that comes with the id."""
    fresh: bool = False
    """Always start a new run; later calls may get its answer."""
    alone: bool = False
    """Share the run and its answer with no other call."""


NO_OPTIONS = CallOptions()


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One dispatch among several."""

    request: DispatchRequest
    ref: bool = False
    """The caller gets a reference instead of the answer, as with `dispatch`."""
    summary_chars: int = 500
    fresh: bool = False
    """Run it even if the answer is in the cache."""
    job_id: str | None = None
    """An earlier job that has the answer."""


class Progress(msgspec.Struct, frozen=True):
    """One line about what a dispatch does right now; a newer line replaces it."""

    message: str
    job_id: str | None = None
    """The id of the job; set in the first progress of a dispatch."""
    member: int | None = None
    """The index, from 0, of one of several dispatches at once."""
    questions: tuple[Question, ...] | None = None
    """The open permission questions of the job, if they have changed; then `job_id` is set too."""
    agent: str = ""
    """The agent; empty: the agent of the job."""
    is_tool: bool = False
    """It is about a tool call, so a newer line may replace it; it must not replace a sentence."""
    stem: str = ""
    """The message without the time, for a surface that counts the seconds itself; empty: the whole
    message."""
    run_s: float = 0
    """Seconds since the run began."""


OnProgress = Callable[[Progress], None]
"""Called by the reader of the child's output; must return at once and never raise."""


def ignore_progress(progress: Progress, /) -> None:
    """Ignore progress, for a caller that does not watch."""


class DeniedCall(msgspec.Struct, frozen=True):
    """A tool call that was denied."""

    tool: str
    input: str
    """Compact JSON, cut at 300 characters."""


class Evidence(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a run did, as measured and not as the agent reports it."""

    tool_calls: int
    """With those of subagents, without denied ones."""
    tools: dict[str, int] | None = None
    """The number of calls by tool."""
    files_changed: list[str] | None = None
    """At most 200, relative to the agent's directory."""
    commits: list[str] | None = None
    """Full ids of new commits, oldest first."""
    read_only: bool
    """All attempted calls, denied ones included, were of tools that change nothing."""


class DispatchResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The result of a dispatch; the order of the fields is the order on the wire."""

    agent: str
    success: bool
    result: str
    """The agent's answer as text; empty if there is none."""
    session_id: str | None = None
    """The session; set once it can be resumed."""
    job_id: str | None = None
    cost_usd: float | None = None
    """US dollars of this run, without earlier runs of its session; None if not known."""
    duration_ms: int | None = None
    """Wall time of the run, queueing not counted."""
    num_turns: int | None = None
    error: str | None = None
    error_type: ErrorType | None = None
    parsed_result: Any | msgspec.UnsetType = msgspec.UNSET
    """The JSON value of the answer, `None` for null; unset if not requested or not JSON."""
    denied_tools: list[str] | None = None
    """Tools with denied calls, each once, in order of the first denial."""
    denied_calls: list[DeniedCall] | None = None
    """The denied calls, each once, in order."""
    evidence: Evidence | None = None
    """None: no output was read."""
    verified: bool | None = None
    """Whether the agent's `verify` command passed; None: it was not run."""
    verify_output: str | None = None
    """The end of that command's output."""
    resets_at: str | None = None
    """When the usage limit that stopped the run resets: ISO 8601, in UTC."""
    hint: str | None = None
    budget_exceeded: bool | None = None
    """True: this run cost more than its cap; the CLI only checks between turns."""
    left_running: int | None = None
    """Processes that the agent left behind; they were ended with the run."""
    earlier_results: list[str] | None = None
    """Earlier non-empty answers, oldest first."""
    truncated: bool | None = None
    full_size: int | None = None
    cached: bool | None = None
    cached_at: str | None = None
    """When the run of a cached answer ended: ISO 8601, in UTC."""
    next_steps: list[NextStep] | None = None
    """Only in the record: a surface words them in `error` or `hint`."""
