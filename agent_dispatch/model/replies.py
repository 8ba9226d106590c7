"""What callers are told about jobs, beside the job itself."""

from typing import Any

import msgspec

from agent_dispatch.model.dispatch import ErrorType, Evidence
from agent_dispatch.model.job import Job, JobStatus


class ResultRef(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What stands for a result whose text is fetched when it is needed."""

    ref: str
    """The job's id."""
    agent: str
    success: bool
    size: int
    """Characters of the text."""
    summary_chars: int
    summary: str
    """As many characters of the text, from its beginning."""
    session_id: str | None = None
    cost_usd: float | None = None
    duration_ms: int | None = None
    error: str | None = None
    error_type: ErrorType | None = None
    parsed_result: Any | msgspec.UnsetType = msgspec.UNSET
    denied_tools: list[str] | None = None
    evidence: Evidence | None = None
    verified: bool | None = None
    hint: str | None = None


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """A permission question that a person has answered."""

    job_id: str
    outcome: str
    """`answered`, or `resumed`: the call is made in this new job."""


class Submitted(msgspec.Struct, frozen=True, kw_only=True):
    """A background job that was started."""

    job_id: str
    status: JobStatus
    agent: str


class StillRunning(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A call that is answered before its end, because its client would not wait for the end."""

    status: str
    """`running`."""
    job_id: str
    agent: str | None = None
    agents: list[str] | None = None
    """In place of `agent`, if there are several."""
    next: str
    """What to do for the answer."""


class WaitedFor(Job, frozen=True, kw_only=True, omit_defaults=True):
    """A job that was waited for."""

    timed_out_waiting: bool = False
    """It is not over: the patience was, and the job goes on."""


class Cancellation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What asking for the end of a job came to."""

    job_id: str
    outcome: str
    """`cancelled`, `running` (still ending), `already_terminal` or `not_found`."""
    hint: str | None = None


class Sent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What sending a message to the agent of a job came to."""

    job_id: str
    outcome: str
    """`delivered`, `queued`, `already_terminal` or `not_found`."""
    session_id: str | None = None
    """Of a job that has ended: the conversation to go on with."""
    next: str | None = None
    """How to say it there."""
    hint: str | None = None


class Purged(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was removed, or with `dry_run` would be."""

    purged: int
    """Jobs."""
    litter: int = 0
    """Files that dead processes had left behind."""
    ids: list[str] | None = None
    """Of the jobs, where they were asked for."""
    dry_run: bool = False
    warnings: list[str] | None = None
    """What was passed over."""


class CacheStats(msgspec.Struct, frozen=True, kw_only=True):
    """How full the cache is and how often it helped."""

    enabled: bool
    size: int
    """Answers that are kept."""
    max_size: int
    ttl: float
    """Seconds."""
    hits: int
    """Dispatches that needed no run of their own."""
    misses: int
    hit_rate: float
    """Of all dispatches that could have been answered so, 0 to 1."""


class CacheCleared(msgspec.Struct, frozen=True, kw_only=True):
    """What clearing the cache came to."""

    cleared: int
    """Answers that were kept."""
