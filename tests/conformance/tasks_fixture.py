"""The tools that the conformance suite asks for tasks, as jobs behind our own task handlers.

python -m tests.conformance.tasks_fixture    prints its address and serves until it is killed
"""

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

import mcp_types as types
import msgspec
import trio
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError

from agent_dispatch.jobs.errors import UnknownJobError
from agent_dispatch.jobs.ids import IdSource, check_job_id
from agent_dispatch.jobs.record import ended
from agent_dispatch.jobs.waiting import CancelOutcome
from agent_dispatch.model.dispatch import DispatchRequest, DispatchResult, ErrorType
from agent_dispatch.model.job import Job, JobKind, JobStatus, new_job
from agent_dispatch.model.question import AnsweredBy, Question, Verdict
from agent_dispatch.model.replies import Answered
from agent_dispatch.run.jobs import Jobs
from agent_dispatch.run.service import Service
from agent_dispatch.server import tasks
from agent_dispatch.server.http_server import PATH, http_app, listen, serve_app

Ctx = ServerRequestContext[Any]
Work = Callable[[str, Mapping[str, Any]], Awaitable[str]]
_NOW = 1.8e9


class MemoryService(Service, Jobs):
    """Jobs in memory, each a coroutine that returns its answer."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.jobs = self
        self.nursery = nursery
        self._ids = IdSource()
        self._jobs: dict[str, Job] = {}
        self._scopes: dict[str, trio.CancelScope] = {}
        self._answers: dict[str, dict[str, trio.Event]] = {}

    def start(self, work: Work, arguments: Mapping[str, Any]) -> Job:
        """Begin a job."""
        request = DispatchRequest(agent="fixture", task=str(arguments))
        job = new_job(self._ids.next(), request, _NOW, kind=JobKind.BACKGROUND)
        job = msgspec.structs.replace(job, status=JobStatus.RUNNING, started_at=_NOW)
        self._jobs[job.id] = job
        self._scopes[job.id] = trio.CancelScope()
        self.nursery.start_soon(self._work, job.id, work, arguments)
        return job

    async def _work(self, job_id: str, work: Work, arguments: Mapping[str, Any]) -> None:
        result = DispatchResult(
            agent="fixture",
            success=False,
            result="",
            error="Cancelled.",
            error_type=ErrorType.CANCELLED,
        )
        with self._scopes[job_id]:
            answer = await work(job_id, arguments)
            result = DispatchResult(agent="fixture", success=True, result=answer)
        self._jobs[job_id] = ended(self._jobs[job_id], result, _NOW + 1)

    async def ask(self, job_id: str, *inputs: str) -> None:
        """Ask a person about each of these at once, and wait for all answers."""
        self._answers[job_id] = {f"q-{what}": trio.Event() for what in inputs}
        self._show_open(job_id)
        for event in list(self._answers[job_id].values()):
            await event.wait()

    def _show_open(self, job_id: str) -> None:
        waiting = [
            Question(id=key, tool="Bash", input={"what": key}, asked_at=_NOW, agent="fixture")
            for key, event in self._answers[job_id].items()
            if not event.is_set()
        ]
        self._jobs[job_id] = msgspec.structs.replace(
            self._jobs[job_id],
            question=waiting[0] if waiting else None,
            later_questions=waiting[1:] or None,
        )

    async def get(self, job_id: str) -> Job:
        """One job as it is now."""
        await trio.lowlevel.checkpoint()
        check_job_id(job_id)
        if job_id not in self._jobs:
            raise UnknownJobError(job_id)
        return self._jobs[job_id]

    async def cancel(
        self, job_id: str, *, by: str = "a caller", keep: bool = False
    ) -> CancelOutcome:
        """End a job."""
        self._scopes[job_id].cancel()
        while not self._jobs[job_id].status.is_terminal:  # noqa: ASYNC110  # a fixture
            await trio.sleep(0.01)
        return CancelOutcome.CANCELLED

    async def answer(
        self, job_id: str, verdict: Verdict, by: AnsweredBy, question_id: str = ""
    ) -> Answered:
        """Answer a question."""
        await trio.lowlevel.checkpoint()
        self._answers[job_id][question_id].set()
        self._show_open(job_id)
        return Answered(job_id=job_id, outcome="answered")


def _tool(name: str, /, **properties: str) -> types.Tool:
    fields = {field: {"type": kind} for field, kind in properties.items()}
    return types.Tool(name=name, input_schema={"type": "object", "properties": fields})


TOOLS = [
    _tool("greet", name="string"),
    _tool("slow_compute", seconds="number", label="string"),
    _tool("failing_job"),
    _tool("protocol_error_job"),
    _tool("confirm_delete", filename="string"),
    _tool("multi_input"),
    _tool("test_tool_with_task"),
]


def _needs_tasks() -> MCPError:
    """The error of a tool that takes no client without tasks; none of the product does so."""
    required: dict[str, Any] = {"requiredCapabilities": {"extensions": {tasks.EXTENSION: {}}}}
    return MCPError(types.MISSING_REQUIRED_CLIENT_CAPABILITY, "needs tasks", required)


def make_server() -> Server[MemoryService]:
    """Make the server; its jobs live as long as it runs."""
    holder: list[MemoryService] = []

    @asynccontextmanager
    async def lifespan(_server: Server[MemoryService]) -> AsyncIterator[MemoryService]:
        async with trio.open_nursery() as nursery:
            holder.append(MemoryService(nursery))
            yield holder[0]
            nursery.cancel_scope.cancel()

    async def compute(_job_id: str, arguments: Mapping[str, Any]) -> str:
        await trio.sleep(float(arguments.get("seconds", 1)))
        return f"computed {arguments.get('label', '')}"

    async def confirm(job_id: str, arguments: Mapping[str, Any]) -> str:
        await holder[0].ask(job_id, str(arguments.get("filename", "it")))
        return "deleted"

    async def confirm_twice(job_id: str, _arguments: Mapping[str, Any]) -> str:
        await holder[0].ask(job_id, "one", "two")
        return "both"

    works: Mapping[str, Work] = {
        "slow_compute": compute,
        "failing_job": compute,
        "protocol_error_job": compute,
        "confirm_delete": confirm,
        "multi_input": confirm_twice,
    }

    async def call_tool(ctx: Ctx, params: types.CallToolRequestParams) -> Any:
        await trio.lowlevel.checkpoint()
        arguments = params.arguments or {}
        if params.name == "greet":
            said = f"Hello, {arguments.get('name')}!"
            return types.CallToolResult(content=[types.TextContent(text=said)])
        if params.name == "test_tool_with_task":
            return await _composed(ctx, params)
        if not tasks.takes_tasks(ctx) and params.name == "failing_job":
            raise _needs_tasks()
        if not tasks.takes_tasks(ctx):
            said = await works[params.name]("", arguments)
            return types.CallToolResult(content=[types.TextContent(text=said)])
        if arguments.get("seconds") == 0:
            return types.CallToolResult(content=[types.TextContent(text="computed at once")])
        return tasks.created(ctx, holder[0].start(works[params.name], arguments))

    async def _composed(ctx: Ctx, params: types.CallToolRequestParams) -> Any:
        await trio.lowlevel.checkpoint()
        if not tasks.takes_tasks(ctx):
            raise _needs_tasks()
        responses = params.input_responses
        if not responses:
            form = types.ElicitRequestFormParams(
                message="name?",
                requested_schema={"type": "object", "properties": {"name": {"type": "string"}}},
            )
            return types.InputRequiredResult(
                input_requests={"user_name": types.ElicitRequest(params=form)}, request_state="s"
            )
        [response] = responses.values()
        name = (getattr(response, "content", None) or {}).get("name", "")
        return tasks.created(ctx, holder[0].start(compute, {"seconds": 0.2, "label": name}))

    async def list_tools(
        ctx: Ctx, params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        await trio.lowlevel.checkpoint()
        return types.ListToolsResult(tools=TOOLS)

    server: Server[MemoryService] = Server(
        "tasks-fixture",
        version="1",
        lifespan=lifespan,
        on_list_tools=list_tools,
        on_call_tool=cast("Any", call_tool),
    )
    server.extensions[tasks.EXTENSION] = {}

    def late(name: str) -> tasks.Handler:
        async def handle(ctx: Ctx, params: Any) -> dict[str, Any]:
            handlers = {method: found for method, _, found in tasks.Tasks(holder[0]).handlers()}
            return await handlers[name](ctx, params)

        return handle

    for method, params, _ in tasks.Tasks(cast("Service", None)).handlers():
        server.add_request_handler(method, params, late(method))
    return server


async def _serve() -> None:
    with listen("127.0.0.1", 0) as listener:
        sys.stdout.write(f"http://127.0.0.1:{listener.getsockname()[1]}{PATH}\n")
        sys.stdout.flush()
        await serve_app(http_app(make_server(), "127.0.0.1", None), listener)


if __name__ == "__main__":
    trio.run(_serve)
