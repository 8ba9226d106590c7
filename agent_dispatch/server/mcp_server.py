"""The MCP server: our tools on the library's low-level `Server`, which speaks both protocol eras.

A `tools/call` passes the middlewares in the order of `build_server` and reaches `call_tool`. From
there on nothing knows of the MCP library: `Toolbox.call` finds the tool and checks its arguments,
`ToolCall.run` decides how long to wait, and the tool's function calls the service.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, cast

import mcp_types as types
import trio
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.lowlevel import Server

import agent_dispatch
from agent_dispatch.errors import DispatchError
from agent_dispatch.jobs.origin import REQUEST_SESSION
from agent_dispatch.run.service import Service
from agent_dispatch.server import tasks
from agent_dispatch.server.calls.caller import Caller, FormMode, TaskMode
from agent_dispatch.server.calls.envelope import Envelope, refusal
from agent_dispatch.server.calls.forms import FormRequest
from agent_dispatch.server.calls.pending import InBackground, PendingCalls
from agent_dispatch.server.calls.toolbox import Toolbox
from agent_dispatch.server.cancel_notices import CancelNotices
from agent_dispatch.server.elicitation import Forms, can_show_forms, input_required, response_in
from agent_dispatch.server.mcp_results import TEMPLATE, as_wire, call_result, read_result
from agent_dispatch.server.tools.catalogue import INSTRUCTIONS, TOOLS

ArrivedAt = Callable[[types.RequestId | None], float]
"""Returns when a request came, on Trio's clock."""
Context = ServerRequestContext[PendingCalls]

SERVER_NAME = "agent-dispatch"
_SESSION = "claudecode/sessionId"
"""In `_meta` of a request: the session of Claude Code, if it is not that of the environment."""


def build_server(
    service: Service | DispatchError,
    *,
    arrived_at: ArrivedAt = lambda _request_id: trio.current_time(),
) -> Server[PendingCalls]:
    """Build the server, ready for `Server.run` or the library's in-memory client.

    Args:
        service: What the tools work with, or why there is none.
        arrived_at: Returns when a request came, on Trio's clock.
    """
    handlers = _Handlers(service, arrived_at)
    server: Server[PendingCalls] = Server(
        SERVER_NAME,
        lifespan=handlers.open_pending_calls,
        version=agent_dispatch.__version__,
        instructions=INSTRUCTIONS,
        on_list_tools=handlers.list_tools,
        # Its type has no tasks, but its code passes on the results of extensions.
        on_call_tool=cast("Any", handlers.call_tool),
        on_list_resources=handlers.list_resources,
        on_list_resource_templates=handlers.list_templates,
        on_read_resource=handlers.read_resource,
    )
    # Replaced, so that the library's OpenTelemetry spans are gone: nothing here exports them.
    server.middleware[:] = [
        handlers.cancel_notices.listen,
        _declare_tasks,
        handlers.intercept_call,
    ]
    server.extensions[tasks.EXTENSION] = {}
    for method, params, handler in handlers.tasks.handlers():
        server.add_request_handler(method, params, handler)
    return server


class _Handlers:
    """The handlers of requests for tools and resources."""

    def __init__(self, service: Service | DispatchError, arrived_at: ArrivedAt) -> None:
        self._service = service
        self._toolbox = Toolbox(service, TOOLS)
        self._arrived_at = arrived_at
        self.tasks = tasks.Tasks(service)
        self.cancel_notices = CancelNotices()
        self._listing = types.ListToolsResult(
            tools=[types.Tool.model_validate(entry) for entry in self._toolbox.listing()]
        )

    @asynccontextmanager
    async def open_pending_calls(
        self, _server: Server[PendingCalls]
    ) -> AsyncIterator[PendingCalls]:
        """Give the server a place for work that outlives a call."""
        async with trio.open_nursery() as nursery:
            yield PendingCalls(nursery, self._service)
            nursery.cancel_scope.cancel()

    async def list_tools(
        self, _ctx: Context, _params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        await trio.lowlevel.checkpoint()
        return self._listing

    async def call_tool(
        self, ctx: Context, params: types.CallToolRequestParams
    ) -> types.CallToolResult | dict[str, Any]:
        """Call a tool; the answer may be a task, or a request to show forms."""

        async def report(number: float, message: str) -> None:
            await ctx.session.report_progress(number, message=message)

        caller, pending = _caller(ctx, self._arrived_at), ctx.lifespan_context
        REQUEST_SESSION.set(_session_of(ctx))
        with self.cancel_notices.noted(ctx, caller), _forms_for(ctx, caller, self._service):
            reply = await self._toolbox.call(params.name, params.arguments, report, caller, pending)
        match reply:
            case FormRequest():
                return input_required(reply)
            case InBackground(job_id):
                return tasks.created(ctx, await self.tasks.job(job_id))
            case Envelope():
                return call_result(reply, ctx.protocol_version)

    async def intercept_call(self, ctx: Context, call_next: CallNext) -> HandlerResult:
        """Answer calls that the library would refuse: malformed ones, and those of older tasks.

        The library does not say what is malformed, and takes no task for the answer of a tool.
        """
        if ctx.method != "tools/call":
            return await call_next(ctx)
        fields = ctx.params or {}
        name = fields.get("name")
        if not isinstance(name, str):
            return _refuse(ctx, "A tool call needs `name`, the tool's name as text.")
        if not isinstance(fields.get("arguments"), dict | None):
            return _refuse(ctx, "`arguments` of a tool call must be an object.")
        if not (tasks.wants_task(ctx) and self._toolbox.may_be_task(name)):
            return await call_next(ctx)
        params = types.CallToolRequestParams.model_validate(fields, by_name=False)
        result = await self.call_tool(ctx, params)
        return result if isinstance(result, dict) else as_wire(result, ctx.protocol_version)

    async def list_resources(
        self, _ctx: Context, _params: types.PaginatedRequestParams | None
    ) -> types.ListResourcesResult:
        """List no resource: results are read by the template."""
        await trio.lowlevel.checkpoint()
        return types.ListResourcesResult(resources=[])

    async def list_templates(
        self, _ctx: Context, _params: types.PaginatedRequestParams | None
    ) -> types.ListResourceTemplatesResult:
        await trio.lowlevel.checkpoint()
        return types.ListResourceTemplatesResult(resource_templates=[TEMPLATE])

    async def read_resource(
        self, ctx: Context, params: types.ReadResourceRequestParams
    ) -> types.ReadResourceResult:
        return await read_result(self._service, params.uri, modern=tasks.is_modern(ctx))


def _caller(ctx: Context, arrived_at: ArrivedAt) -> Caller:
    client = ctx.session.client_params
    task_mode = TaskMode.NEVER
    if tasks.wants_task(ctx):
        task_mode = TaskMode.ALWAYS
    elif tasks.takes_tasks(ctx):
        task_mode = TaskMode.IF_LONG
    form_mode = FormMode.NONE
    if can_show_forms(ctx):
        form_mode = FormMode.BY_RETRY if tasks.is_modern(ctx) else FormMode.DURING_CALL
    return Caller(
        client=client.client_info.name if client else "",
        arrived_at=arrived_at(ctx.request_id),
        task_mode=task_mode,
        form_mode=form_mode,
        response=response_in(ctx) if tasks.is_modern(ctx) else None,
    )


@contextmanager
def _forms_for(ctx: Context, caller: Caller, service: Service | DispatchError) -> Iterator[None]:
    """Let the caller show forms during a call of the older era; close them at its end."""
    if caller.form_mode is not FormMode.DURING_CALL or isinstance(service, DispatchError):
        yield
        return
    forms = Forms(ctx.lifespan_context.nursery, ctx, service)
    caller.show_questions, caller.confirm_widening = forms.on_progress, forms.confirm
    try:
        yield
    finally:
        forms.close()


def _session_of(ctx: Context) -> str | None:
    """Return the client's session, if the request names it."""
    session = dict(ctx.meta or {}).get(_SESSION)
    return session if isinstance(session, str) and session else None


def _refuse(ctx: ServerRequestContext[Any], message: str) -> dict[str, Any]:
    version = ctx.protocol_version
    return as_wire(call_result(refusal(message), version), version)


async def _declare_tasks(ctx: ServerRequestContext[Any], call_next: CallNext) -> HandlerResult:
    """Declare the older tasks to clients of the one revision that has them.

    The library knows them as types only.
    """
    result = await call_next(ctx)
    if ctx.method != "initialize" or not isinstance(result, dict):
        return result
    if result.get("protocolVersion") == tasks.FIRST_VERSION:
        result["capabilities"]["tasks"] = tasks.CAPABILITIES
    return result
