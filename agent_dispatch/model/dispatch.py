"""What travels through a dispatch: the request, what its caller sees meanwhile, and the result."""

from collections.abc import Callable
from enum import StrEnum
from typing import Any

import msgspec

from agent_dispatch.model.next_step import NextStep
from agent_dispatch.model.question import Question

COST_DECIMALS = 6
"""Of an amount in US dollars; the CLI's sums have more, from binary fractions."""


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
    """Said by a caller of a host that it cannot reach, never by the job's owner."""
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
    """A JSON Schema, as JSON, that the answer has to fit; empty for none."""
    timeout_s: float | None = None
    """None: the agent's own. Counts running, not queueing."""
    session_id: str | None = None
    """A session to resume; None starts one."""
    model: str = ""
    """In place of the agent's own; empty for that one."""
    effort: str = ""
    """The same for the effort."""
    verify: bool = False
    """Run the agent's `verify` command on its work; `verify_always` of the agent does so too."""
    words_only: bool = False
    """It asks for words about what others said: a turn of a dialogue, or one answer of many.
    `verify_always` is not about it."""


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One dispatch among several."""

    request: DispatchRequest
    ref: bool = False
    """Its caller gets a ref in place of the answer, as with `dispatch`."""
    summary_chars: int = 500
    fresh: bool = False
    """Run it whatever was asked before."""
    job_id: str | None = None
    """Its answer is that of this job, which somebody asked for before."""


class Progress(msgspec.Struct, frozen=True):
    """One line on what a dispatch does right now; newest wins, none is worth waiting for."""

    message: str
    job_id: str | None = None
    """Set in the first one of a dispatch: under this id it can be found again."""
    member: int | None = None
    """Which of several that go at once it is about, counted from 0."""
    questions: tuple[Question, ...] | None = None
    """The permission questions of the job that are open now, if they have changed; `job_id` is set
    then, too."""
    agent: str = ""
    """Whom it is about; empty: the agent of the job."""
    is_tool: bool = False
    """It is about a tool call; a newer one may take its place, but not that of a sentence."""
    stem: str = ""
    """The message without the time, for a reader that goes on counting; empty: the message."""
    run_s: float = 0
    """Seconds since the run began, when this was told."""


OnProgress = Callable[[Progress], None]
"""Called from the reader of the child's output: must return at once and never raise."""


def ignore_progress(progress: Progress, /) -> None:
    """The sink of a caller that does not watch."""


class DeniedCall(msgspec.Struct, frozen=True):
    """A tool call that was denied."""

    tool: str
    input: str
    """What it was given: compact JSON, cut at 300 characters."""


class Evidence(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a run did, as it was measured: nothing of it is what the agent says of itself."""

    tool_calls: int
    """Subagents' calls included, denied ones not."""
    tools: dict[str, int] | None = None
    """How many of each tool."""
    files_changed: list[str] | None = None
    """At most 200, relative to the agent's directory."""
    commits: list[str] | None = None
    """Full ids of the commits that were made, oldest first."""
    read_only: bool
    """Each call that was attempted, denied ones included, was one that changes nothing."""


class DispatchResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the caller of a dispatch gets; the order of the fields is the order on the wire."""

    agent: str
    success: bool
    result: str
    """The agent's answer, always text; empty when there is none."""
    session_id: str | None = None
    """The conversation, present once a transcript can exist."""
    job_id: str | None = None
    cost_usd: float | None = None
    """US dollars that this run cost, not its session so far; None when it is not known."""
    duration_ms: int | None = None
    """Wall time of the run, queueing not counted."""
    num_turns: int | None = None
    error: str | None = None
    error_type: ErrorType | None = None
    parsed_result: Any | msgspec.UnsetType = msgspec.UNSET
    """The JSON value of the answer, `None` for null; unset when not asked for or not JSON."""
    denied_tools: list[str] | None = None
    """Tools whose calls were denied, each once, in order of the first denial."""
    denied_calls: list[DeniedCall] | None = None
    """The calls themselves, each once, in order."""
    evidence: Evidence | None = None
    """None: no output of an agent was read."""
    verified: bool | None = None
    """Whether the agent's `verify` command passed; None: it was not run."""
    verify_output: str | None = None
    """The end of what that command printed."""
    resets_at: str | None = None
    """When the usage limit that stopped the run ends: ISO 8601, in UTC."""
    hint: str | None = None
    budget_exceeded: bool | None = None
    """True: this run cost more than its cap (the CLI checks between turns)."""
    left_running: int | None = None
    """Processes that the agent left behind and that were ended with it."""
    earlier_results: list[str] | None = None
    """Non-empty answers before the last one, oldest first."""
    truncated: bool | None = None
    full_size: int | None = None
    cached: bool | None = None
    cached_at: str | None = None
    """When the run ended whose answer this is: ISO 8601, in UTC."""
    next_steps: list[NextStep] | None = None
    """Kept in the record; a surface words them in `error` or `hint`, and leaves them out."""
