"""A job: the record of one dispatch, and its life cycle.

Times are seconds since the epoch, for people to read; no decision depends on them.
"""

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from agent_dispatch.errors import InvalidRequestError, quoted
from agent_dispatch.model.dispatch import DispatchRequest, DispatchResult, ErrorType, Member
from agent_dispatch.model.message import Message
from agent_dispatch.model.question import PastQuestion, Question

MAX_LISTED = 1000
"""The most rows of one listing."""
JOB_VARIABLE = "AGENT_DISPATCH_JOB"
"""Names the job in the environment of its agent and of everything below it. Jobs that are started
inside end with that job, and processes that outlived their guard are found by it."""

SUMMARY_TASK_CHARS = 120
_SUMMARY_PROGRESS_CHARS = 200
_SUMMARY_AGENTS = 20
PROGRESS_LINES = 20
PROGRESS_LINE_CHARS = 500


class JobKind(StrEnum):
    """Who owns a job."""

    CALL = "call"
    """The server or command that serves the caller; the job ends with the call."""
    BACKGROUND = "background"
    """A detached worker; the job outlives the process that submitted it."""
    GROUP = "group"
    """A detached worker that runs several dispatches, each under its own job."""


class JobStatus(StrEnum):
    """The state of a job; the last three are final."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        """Whether the job has ended; then its record never changes."""
        return not _NEXT_STATUSES[self]


_NEXT_STATUSES: Mapping[JobStatus, frozenset[JobStatus]] = {
    JobStatus.PENDING: frozenset({JobStatus.RUNNING, JobStatus.FAILED, JobStatus.CANCELLED}),
    JobStatus.RUNNING: frozenset({JobStatus.DONE, JobStatus.FAILED, JobStatus.CANCELLED}),
    JobStatus.DONE: frozenset(),
    JobStatus.FAILED: frozenset(),
    JobStatus.CANCELLED: frozenset(),
}
"""The statuses that may follow each status."""


def status_named(text: str) -> JobStatus | None:
    """Return the status with a name; None for an empty name, which means all.

    Raises:
        InvalidRequestError: No status has that name.
    """
    name = text.strip().lower()
    if name and name not in list(JobStatus):
        raise InvalidRequestError(
            f"Unknown status: {quoted(text)}. Use one of: {', '.join(JobStatus)}; empty for all."
        )
    return JobStatus(name) if name else None


def may_become(old: JobStatus, new: JobStatus) -> bool:
    """Tell whether a record with status `old` may be replaced by one with status `new`.

    A job that has not ended may keep its status; a terminal record is never replaced.
    """
    return new in _NEXT_STATUSES[old] or (new is old and not old.is_terminal)


class Job(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The record of one dispatch: its request, its state, and its result."""

    id: str
    """32 hex digits."""
    kind: JobKind
    agent: str
    agents: list[str] | None = None
    """All agents of a job with several: the requester and the responder of a dialogue, or the
    agents of a group."""
    max_rounds: int | None = None
    """Of a dialogue that a worker runs."""
    dispatches: list[Member] | None = None
    """The request of a group."""
    aggregate: str = ""
    """The agent that combines their answers; empty for none."""
    members: list[str] | None = None
    """The started jobs of a group, in the order of `dispatches`."""
    task: str
    context: str = ""
    caller: str = ""
    goal: str = ""
    group: str = ""
    """The group whose shared context went with the task."""
    response_format: str = ""
    json_schema: str = ""
    timeout_seconds: float | None = None
    """From the call; None: the agent's own."""
    resume_session_id: str | None = None
    """The session to resume, from the call."""
    model: str = ""
    """From the call; empty: the agent's own."""
    effort: str = ""
    verify: bool = False
    """The call asked for the agent's `verify` command."""
    parent: str | None = None
    """The job inside whose agent this job was started; this job ends with it."""
    client_session: str | None = None
    """The session of the calling client, if known."""
    started_from: str | None = None
    """The working directory of the server or command that started it."""
    tree: str | None = None
    """The id of the outermost call or command above this job."""
    ref: bool = False
    """The caller got this id instead of the whole answer, or left before the answer: the record is
    kept until `gc`."""
    client_gave_up: bool = False
    """The client's time limit passed before the answer, and the job went on."""
    summary_chars: int | None = None
    """The call is answered by a reference with this number of characters."""
    status: JobStatus
    created_at: float
    started_at: float | None = None
    completed_at: float | None = None
    held_until: float | None = None
    """When the account's limit resets, while the job waits for that."""
    session_id: str | None = None
    """The session, once it can be resumed."""
    answer: str = ""
    """The answer of the agent while its `verify` command checks it."""
    result: DispatchResult | None = None
    """Set when the run has ended, failed or not."""
    error: str | None = None
    error_type: ErrorType | None = None
    progress: list[str] | None = None
    """The last lines of progress, oldest first."""
    progress_updated_at: float | None = None
    messages: list[Message] | None = None
    """Messages to the agent while it worked, in the order in which they were sent."""
    question: Question | None = None
    """The oldest open permission question."""
    later_questions: list[Question] | None = None
    """The other open questions, oldest first."""
    questions: list[PastQuestion] | None = None
    """The closed questions, in the order in which they were closed."""
    allow_once: PastQuestion | None = None
    """A question that was allowed after its job had ended; this job lets the session make the call.
    Only the answer of a person sets it, never a caller."""
    host: str | None = None
    """The host of the job, for a caller on another machine; never in a record."""
    unreachable_since: float | None = None
    """When that host was first not reachable, in seconds since the epoch; the rest of the job is as
    last known."""

    @property
    def open_questions(self) -> list[Question]:
        """The open questions, oldest first."""
        return [] if self.question is None else [self.question, *(self.later_questions or ())]

    @property
    def has_questions(self) -> bool:
        """Whether it has open or closed questions."""
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
    """A row of a job listing, of bounded size."""

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
    """The first agents of a job with several."""
    has_questions: bool = False
    host: str | None = None
    unreachable_since: float | None = None


def summarise(job: Job) -> JobSummary:
    """Return the row of a job in a listing; it has most fields from the job as they are."""
    success = job.status is JobStatus.DONE if job.status.is_terminal else None
    shared = msgspec.convert(job, JobSummary, from_attributes=True)
    return msgspec.structs.replace(
        shared,
        task=job.task[:SUMMARY_TASK_CHARS],
        agents=None if job.agents is None else job.agents[:_SUMMARY_AGENTS],
        success=success if job.result is None else job.result.success,
        cost_usd=None if job.result is None else job.result.cost_usd,
        last_progress=job.progress[-1][:_SUMMARY_PROGRESS_CHARS] if job.progress else None,
    )
