"""A job: one dispatch as it is kept on disk, and the life it may lead.

Times are seconds since the epoch, for people to read; nothing is decided by them.
"""

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from agent_dispatch.errors import InvalidRequestError
from agent_dispatch.model.dispatch import DispatchRequest, DispatchResult, ErrorType, Member
from agent_dispatch.model.message import Message
from agent_dispatch.model.question import PastQuestion, Question

MAX_LISTED = 1000
"""Rows of one listing, at most."""
JOB_VARIABLE = "AGENT_DISPATCH_JOB"
"""Names, for an agent and all that it starts, the job it works for: jobs that are started inside
it end with it, and what outlived everybody who watched over it is found by it."""

SUMMARY_TASK_CHARS = 120
SUMMARY_PROGRESS_CHARS = 200
SUMMARY_AGENTS = 20
PROGRESS_LINES = 20
PROGRESS_LINE_CHARS = 500


class JobKind(StrEnum):
    """Who owns a job."""

    CALL = "call"
    """The server or command that serves its caller; the job ends with the call."""
    BACKGROUND = "background"
    """A detached worker; the job outlives the process that submitted it."""
    GROUP = "group"
    """A detached worker that runs several dispatches, each under a job of its own."""


class JobStatus(StrEnum):
    """Where a job is in its life; the last three are final."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        """Whether the job has ended; its record never changes again."""
        return not NEXT_STATUSES[self]


NEXT_STATUSES: Mapping[JobStatus, frozenset[JobStatus]] = {
    JobStatus.PENDING: frozenset({JobStatus.RUNNING, JobStatus.FAILED, JobStatus.CANCELLED}),
    JobStatus.RUNNING: frozenset({JobStatus.DONE, JobStatus.FAILED, JobStatus.CANCELLED}),
    JobStatus.DONE: frozenset(),
    JobStatus.FAILED: frozenset(),
    JobStatus.CANCELLED: frozenset(),
}
"""What may follow a status."""


def status_named(text: str) -> JobStatus | None:
    """Give the status of that name; None for an empty one, which stands for all.

    Raises:
        InvalidRequestError: There is no such status.
    """
    name = text.strip().lower()
    if name and name not in list(JobStatus):
        raise InvalidRequestError(
            f"Unknown status: {text[:40]!r}. Use one of: {', '.join(JobStatus)}; empty for all."
        )
    return JobStatus(name) if name else None


def may_become(old: JobStatus, new: JobStatus) -> bool:
    """Whether a record with status `old` may be replaced by one with status `new`.

    A job that has not ended may stay what it is; a terminal one never changes, not even to itself.
    """
    return new in NEXT_STATUSES[old] or (new is old and not old.is_terminal)


class Job(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The record of one dispatch: what was asked, how it goes, what came of it."""

    id: str
    """32 hex digits."""
    kind: JobKind
    agent: str
    agents: list[str] | None = None
    """All agents of a job that has several: of a dialogue the requester and the responder, or of a
    group."""
    max_rounds: int | None = None
    """Of a dialogue that a worker runs."""
    dispatches: list[Member] | None = None
    """What a group was asked for."""
    aggregate: str = ""
    """The agent that makes one answer of all of them; empty for none."""
    members: list[str] | None = None
    """The jobs of a group, in the order of `dispatches`, as far as they have begun."""
    task: str
    context: str = ""
    caller: str = ""
    goal: str = ""
    group: str = ""
    """The group whose shared context the task went with."""
    response_format: str = ""
    json_schema: str = ""
    timeout_seconds: float | None = None
    """As the call gave it; None: the agent's own."""
    resume_session_id: str | None = None
    """The session that the dispatch was asked to resume."""
    model: str = ""
    """As the call gave it; empty: the agent's own."""
    effort: str = ""
    verify: bool = False
    """The call asked for the agent's `verify` command."""
    parent: str | None = None
    """The job inside whose agent this one was started; it ends with that one."""
    client_session: str | None = None
    """The session of the client that asked for it, as far as it is known."""
    started_from: str | None = None
    """The working directory of the server or command that it was asked of."""
    tree: str | None = None
    """The id of the outermost call or command that this job is a part of."""
    ref: bool = False
    """The caller was given this id in place of the whole answer, or left before it was there: the
    record is kept until `gc`."""
    client_gave_up: bool = False
    """The time limit of the client passed before the answer was there, and the job went on."""
    summary_chars: int | None = None
    """The call is answered by a reference, with this number of characters of the answer."""
    status: JobStatus
    created_at: float
    started_at: float | None = None
    completed_at: float | None = None
    held_until: float | None = None
    """When the account's limit resets that the job waits for; gone when it goes on."""
    session_id: str | None = None
    """The conversation, once there is one to resume."""
    answer: str = ""
    """What the agent has answered, while its `verify` command decides about it."""
    result: DispatchResult | None = None
    """Of a run that ended, failed or not."""
    error: str | None = None
    error_type: ErrorType | None = None
    progress: list[str] | None = None
    """The last lines on what the agent did, oldest first."""
    progress_updated_at: float | None = None
    messages: list[Message] | None = None
    """What the agent was told while it worked, in the order in which it was sent."""
    question: Question | None = None
    """The oldest permission question that waits for a person."""
    later_questions: list[Question] | None = None
    """The open ones after it, oldest first."""
    questions: list[PastQuestion] | None = None
    """Those that are closed, in the order in which they were."""
    allow_once: PastQuestion | None = None
    """The question, answered late, whose call this job was started to let its session make. It is
    no part of a request: only an answer of a person gives one, never a caller."""
    host: str | None = None
    """Where it is, as a caller on another machine sees it; never in a record."""
    unreachable_since: float | None = None
    """Since when that host cannot be reached, in seconds since the epoch; the rest of the job is as
    it was last known."""

    @property
    def open_questions(self) -> list[Question]:
        """All that wait for a person, oldest first."""
        return [] if self.question is None else [self.question, *(self.later_questions or ())]

    @property
    def has_questions(self) -> bool:
        """A person was asked something, or still is."""
        return self.question is not None or bool(self.questions)

    def request(self) -> DispatchRequest:
        """Rebuild the request, for the process that runs the job."""
        return DispatchRequest(
            agent=self.agent,
            task=self.task,
            context=self.context,
            caller=self.caller,
            goal=self.goal,
            group=self.group,
            response_format=self.response_format,
            json_schema=self.json_schema,
            timeout_s=self.timeout_seconds,
            session_id=self.resume_session_id,
            model=self.model,
            effort=self.effort,
            verify=self.verify,
        )


def new_job(
    job_id: str,
    request: DispatchRequest,
    now: float,
    *,
    kind: JobKind,
    parent: str | None = None,
    tree: str | None = None,
    ref: bool = False,
    fields: Mapping[str, object] | None = None,
) -> Job:
    """Make the record of a dispatch that was just asked for, with further `fields` of a `Job`."""
    job = Job(
        id=job_id,
        kind=kind,
        agent=request.agent,
        task=request.task,
        context=request.context,
        caller=request.caller,
        goal=request.goal,
        group=request.group,
        response_format=request.response_format,
        json_schema=request.json_schema,
        timeout_seconds=request.timeout_s,
        resume_session_id=request.session_id,
        model=request.model,
        effort=request.effort,
        verify=request.verify,
        parent=parent,
        tree=tree,
        ref=ref,
        status=JobStatus.PENDING,
        created_at=now,
    )
    return msgspec.structs.replace(job, **fields) if fields else job


class JobSummary(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A row of a job listing, of bounded size whatever the job."""

    id: str
    kind: JobKind
    agent: str
    status: JobStatus
    task: str
    """The first 120 characters."""
    created_at: float
    started_at: float | None = None
    completed_at: float | None = None
    held_until: float | None = None
    session_id: str | None = None
    parent: str | None = None
    ref: bool = False
    success: bool | None = None
    cost_usd: float | None = None
    error_type: ErrorType | None = None
    last_progress: str | None = None
    client_session: str | None = None
    started_from: str | None = None
    agents: list[str] | None = None
    """The first of several."""
    has_questions: bool = False
    host: str | None = None
    unreachable_since: float | None = None


def summarise(job: Job) -> JobSummary:
    """Cut a job down to its row in a listing."""
    success = job.status is JobStatus.DONE if job.status.is_terminal else None
    return JobSummary(
        id=job.id,
        kind=job.kind,
        agent=job.agent,
        status=job.status,
        task=job.task[:SUMMARY_TASK_CHARS],
        created_at=job.created_at,
        started_at=job.started_at,
        completed_at=job.completed_at,
        held_until=job.held_until,
        session_id=job.session_id,
        parent=job.parent,
        client_session=job.client_session,
        started_from=job.started_from,
        agents=None if job.agents is None else job.agents[:SUMMARY_AGENTS],
        ref=job.ref,
        success=success if job.result is None else job.result.success,
        cost_usd=None if job.result is None else job.result.cost_usd,
        error_type=job.error_type,
        last_progress=job.progress[-1][:SUMMARY_PROGRESS_CHARS] if job.progress else None,
        has_questions=job.has_questions,
        host=job.host,
        unreachable_since=job.unreachable_since,
    )
