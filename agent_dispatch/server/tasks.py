"""MCP Tasks: jobs in the two forms that the protocol has for tasks.

The extension `io.modelcontextprotocol/tasks` belongs to revision 2026-07-28, in which each request
declares whether its client takes tasks. The older form belongs to 2025-11-25, in which each call
asks to be a task or not. The id of a task is the id of its job, and everything else is in the job's
record, so any server process can serve the tasks of another.
"""

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from pydantic import Field

from agent_dispatch.errors import DispatchError
from agent_dispatch.jobs.errors import InvalidJobIdError, UnknownJobError
from agent_dispatch.jobs.ids import is_job_id
from agent_dispatch.jobs.waiting import CancelOutcome
from agent_dispatch.model.job import Job, JobKind, JobStatus, JobSummary
from agent_dispatch.model.question import AnsweredBy
from agent_dispatch.run.service import Service
from agent_dispatch.server.calls.envelope import wrapped
from agent_dispatch.server.calls.forms import pass_on, question_text
from agent_dispatch.server.elicitation import Forms, as_request, can_show_forms
from agent_dispatch.server.inline.job import answer_of
from agent_dispatch.server.mcp_results import as_wire, call_result
from agent_dispatch.server.stdio.front_door import HANDSHAKE_VERSIONS

Handler = Callable[[ServerRequestContext[Any], Any], Awaitable[dict[str, Any]]]

EXTENSION = "io.modelcontextprotocol/tasks"
FIRST_VERSION = "2025-11-25"
"""The only revision that has the older form."""
CAPABILITIES: Mapping[str, Any] = {
    "cancel": {},
    "list": {},
    "requests": {"tools": {"call": {}}},
}
"""The capabilities that the older form declares."""
_RELATED = "io.modelcontextprotocol/related-task"
_POLL_MS = 1000
"""Progress is recorded at most once a second."""
_PAGE = 100


class TaskIdParams(types.RequestParams):
    """Parameters of a request about one task."""

    task_id: str


class UpdateParams(TaskIdParams):
    """Parameters of `tasks/update`."""

    input_responses: dict[str, dict[str, Any]] = Field(default_factory=dict)


def is_modern(ctx: ServerRequestContext[Any]) -> bool:
    """Whether a request is of the newer era, in which tasks are an extension."""
    return ctx.protocol_version not in HANDSHAKE_VERSIONS


def takes_tasks(ctx: ServerRequestContext[Any]) -> bool:
    """Whether the client of a modern request declares that it takes tasks."""
    declared = ctx.session.client_capabilities
    return is_modern(ctx) and declared is not None and EXTENSION in (declared.extensions or {})


def wants_task(ctx: ServerRequestContext[Any]) -> bool:
    """Whether an older call asks to be a task."""
    wish = (ctx.params or {}).get("task")
    return ctx.protocol_version == FIRST_VERSION and isinstance(wish, Mapping)


def created(ctx: ServerRequestContext[Any], job: Job) -> dict[str, Any]:
    """Return the answer to a call that became a task."""
    if is_modern(ctx):
        return {"resultType": "task", **_modern(job)}
    return {"task": _old(job)}


class Tasks:
    """Answers requests about tasks from the jobs of one service."""

    def __init__(self, service: Service | DispatchError) -> None:
        """Serve the jobs of `service`; without one, each request fails with the error."""
        self._service_or_error = service

    async def get(self, ctx: ServerRequestContext[Any], params: TaskIdParams) -> dict[str, Any]:
        """Return a task; a modern one that has ended comes with its result."""
        self._check(ctx, params.task_id)
        job = await self.job(params.task_id)
        if not is_modern(ctx):
            return _old(job)
        task: dict[str, Any] = {"resultType": "complete", **_modern(job)}
        if task["status"] == "completed":
            task["result"] = _result(job, ctx)
        elif task["status"] == "input_required":
            task["inputRequests"] = {q.id: as_request(question_text(q)) for q in job.open_questions}
        return task

    async def update(self, ctx: ServerRequestContext[Any], params: UpdateParams) -> dict[str, Any]:
        """Pass on a user's answers to the questions of a task."""
        if not is_modern(ctx):
            raise _no_such_method("tasks/update")
        self._check(ctx, params.task_id)
        job = await self.job(params.task_id)
        responses = params.input_responses
        actions = {
            question.id: str(responses[question.id].get("action"))
            for question in job.open_questions
            if question.id in responses
        }
        await pass_on(self._service, job.id, actions, AnsweredBy.TASK)
        return {"resultType": "complete"}

    async def cancel(self, ctx: ServerRequestContext[Any], params: TaskIdParams) -> dict[str, Any]:
        """Cancel a task; returns when its processes are gone."""
        self._check(ctx, params.task_id)
        job = await self.job(params.task_id)
        had_ended = job.status.is_terminal
        if not had_ended:
            outcome = await self._service.jobs.cancel(job.id, by="its client")
            had_ended = outcome is CancelOutcome.ALREADY_TERMINAL
            job = await self.job(job.id)
        if is_modern(ctx):
            return {"resultType": "complete"}
        if had_ended:
            raise _invalid(f"The task has ended: it is {_status(job)}.")
        return _old(job)

    async def result(self, ctx: ServerRequestContext[Any], params: TaskIdParams) -> dict[str, Any]:
        """Wait for the result of an older task."""
        if is_modern(ctx):
            raise _no_such_method("tasks/result")
        self._check(ctx, params.task_id)
        job = await self.job(params.task_id)
        if not job.status.is_terminal:
            job = await self._wait(ctx, job.id)
        result = _result(job, ctx)
        return {**result, "_meta": {**result.get("_meta", {}), _RELATED: {"taskId": job.id}}}

    async def _wait(self, ctx: ServerRequestContext[Any], job_id: str) -> Job:
        """Wait for the end of a job, and show its questions to the client's user."""
        if not can_show_forms(ctx):
            return await self._service.jobs.wait(job_id, math.inf)
        forms = Forms(ctx.lifespan_context.nursery, ctx, self._service)
        try:
            return await self._service.jobs.wait(job_id, math.inf, forms.on_progress)
        finally:
            forms.close()

    async def list(
        self, ctx: ServerRequestContext[Any], params: types.PaginatedRequestParams
    ) -> dict[str, Any]:
        """List the older tasks of this client's session, the newest first."""
        if is_modern(ctx):
            raise _no_such_method("tasks/list")
        self._check(ctx, None)
        if params.cursor is not None and not is_job_id(params.cursor):
            raise _invalid("The cursor is not one that tasks/list returned.")

        def is_listed(row: JobSummary) -> bool:
            is_older = params.cursor is None or row.id < params.cursor
            return row.kind is not JobKind.CALL and is_older

        listing = await self._service.jobs.newest(limit=_PAGE + 1, mine=True, matches=is_listed)
        jobs = [await self._service.jobs.get(row.id) for row in listing.jobs[:_PAGE]]
        more = {"nextCursor": jobs[-1].id} if len(listing.jobs) > _PAGE else {}
        return {"tasks": [_old(job) for job in jobs], **more}

    def handlers(self) -> Sequence[tuple[str, type[types.RequestParams], Handler]]:
        """Return the methods with their parameters and handlers."""
        return (
            ("tasks/get", TaskIdParams, _with_errors(self.get)),
            ("tasks/update", UpdateParams, _with_errors(self.update)),
            ("tasks/cancel", TaskIdParams, _with_errors(self.cancel)),
            ("tasks/result", TaskIdParams, _with_errors(self.result)),
            ("tasks/list", types.PaginatedRequestParams, _with_errors(self.list)),
        )

    @property
    def _service(self) -> Service:
        if isinstance(self._service_or_error, DispatchError):
            raise MCPError(types.INTERNAL_ERROR, str(self._service_or_error))
        return self._service_or_error

    async def job(self, task_id: str) -> Job:
        """Read the job of a task.

        Raises:
            MCPError: There is none, or it cannot be read.
        """
        try:
            return await self._service.jobs.get(task_id)
        except (InvalidJobIdError, UnknownJobError) as error:
            raise _invalid(f"No such task: {task_id[:80]}") from error
        except DispatchError as error:
            raise MCPError(types.INTERNAL_ERROR, str(error)) from error

    @staticmethod
    def _check(ctx: ServerRequestContext[Any], task_id: str | None) -> None:
        """Refuse a request if its client takes no tasks, or if it names two different tasks."""
        if not is_modern(ctx):
            if ctx.protocol_version != FIRST_VERSION:
                raise _no_such_method(ctx.method)
            return
        if not takes_tasks(ctx):
            required: dict[str, Any] = {"requiredCapabilities": {"extensions": {EXTENSION: {}}}}
            message = f"This request needs the client capability {EXTENSION}."
            raise MCPError(types.MISSING_REQUIRED_CLIENT_CAPABILITY, message, required)
        named = None if ctx.request is None else ctx.request.headers.get("mcp-name")
        if named is not None and named.strip() != task_id:
            message = "The header Mcp-Name and params.taskId differ."
            raise MCPError(types.HEADER_MISMATCH, message)


def _with_errors(handler: Handler) -> Handler:
    """Answer with the errors of the service; the library would take them for bugs."""

    async def answer(ctx: ServerRequestContext[Any], params: Any) -> dict[str, Any]:
        try:
            return await handler(ctx, params)
        except DispatchError as error:
            raise MCPError(types.INTERNAL_ERROR, str(error)) from error

    return answer


def _status(job: Job) -> str:
    match job.status:
        case JobStatus.PENDING | JobStatus.RUNNING:
            return "working" if job.question is None else "input_required"
        case JobStatus.DONE | JobStatus.FAILED:
            return "completed"
        case JobStatus.CANCELLED:
            return "cancelled"


def _view(job: Job) -> dict[str, Any]:
    times = (job.created_at, job.started_at, job.progress_updated_at, job.completed_at)
    view = {
        "taskId": job.id,
        "status": _status(job),
        "createdAt": _iso(job.created_at),
        "lastUpdatedAt": _iso(max(time for time in times if time is not None)),
    }
    if job.progress:
        view["statusMessage"] = job.progress[-1]
    return view


def _modern(job: Job) -> dict[str, Any]:
    return {**_view(job), "ttlMs": None, "pollIntervalMs": _POLL_MS}


def _old(job: Job) -> dict[str, Any]:
    return {**_view(job), "ttl": None, "pollInterval": _POLL_MS}


def _iso(seconds: float) -> str:
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _result(job: Job, ctx: ServerRequestContext[Any]) -> dict[str, Any]:
    """Return the answer that the call would have got without a task."""
    version = ctx.protocol_version
    return as_wire(call_result(wrapped(answer_of(job)), version), version)


def _invalid(message: str) -> MCPError:
    return MCPError(types.INVALID_PARAMS, message)


def _no_such_method(method: str) -> MCPError:
    return MCPError(types.METHOD_NOT_FOUND, "Method not found", method)
