"""The replies to calls about jobs and the cache, except the job itself."""

from typing import Any

import msgspec

from agent_dispatch.model.dispatch import ErrorType, Evidence
from agent_dispatch.model.job import Job, JobStatus


class ResultRef(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A reference to a result, whose text is fetched when it is needed."""

    ref: str
    """The job's id."""
    agent: str
    success: bool
    size: int
    """Characters of the text."""
    summary_chars: int
    summary: str
    """The first `summary_chars` characters of the text."""
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
    """The reply to an answered permission question."""

    job_id: str
    outcome: str
    """`answered`, or `resumed` if the call is made in this new job."""


class Submitted(msgspec.Struct, frozen=True, kw_only=True):
    """The reply to the start of a background job."""

    job_id: str
    status: JobStatus
    agent: str


class StillRunning(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The early reply of a call whose client would not wait for the end."""

    status: str
    """`running`."""
    job_id: str
    agent: str | None = None
    agents: list[str] | None = None
    """Instead of `agent`, if there are several."""
    next: str
    """How to get the answer."""


class WaitedFor(Job, frozen=True, kw_only=True, omit_defaults=True):
    """A job that was waited for."""

    timed_out_waiting: bool = False
    """The time to wait was over, and the job goes on."""


class Cancellation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The reply to the cancellation of a job."""

    job_id: str
    outcome: str
    """`cancelled`, `running` (still ending), `already_terminal` or `not_found`."""
    hint: str | None = None


class Sent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The reply to a message to the agent of a job."""

    job_id: str
    outcome: str
    """`delivered`, `queued`, `already_terminal` or `not_found`."""
    session_id: str | None = None
    """Of a job that has ended: the session to resume."""
    next: str | None = None
    """How to send the message in that session."""
    hint: str | None = None


class Purged(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was removed or, with `dry_run`, would be removed."""

    purged: int
    """The number of jobs."""
    litter: int = 0
    """The number of files that dead processes had left behind."""
    ids: list[str] | None = None
    """The ids of the jobs, if they were requested."""
    dry_run: bool = False
    warnings: list[str] | None = None
    """Files that were skipped."""


class CacheStats(msgspec.Struct, frozen=True, kw_only=True):
    """The size of the cache and its hits."""

    enabled: bool
    size: int
    """The number of answers."""
    max_size: int
    ttl: float
    """Seconds."""
    hits: int
    """Dispatches that needed no run."""
    misses: int
    hit_rate: float
    """The share of all dispatches that could have hit, 0 to 1."""


class CacheCleared(msgspec.Struct, frozen=True, kw_only=True):
    """The reply to clearing the cache."""

    cleared: int
    """The number of answers."""
