"""The MCP server: our tools on the library's low-level `Server`, which speaks both eras."""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, cast

import mcp_types as types
import trio
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.models import InitializationOptions

import agent_dispatch
from agent_dispatch.errors import DispatchError
from agent_dispatch.jobs.origin import REQUEST_SESSION
from agent_dispatch.run.service import Service
from agent_dispatch.server import tasks
from agent_dispatch.server.calls.pending import Caller, Ongoing, ShowsForms, TaskWish
from agent_dispatch.server.calls.toolbox import Tool, Toolbox, refusal
from agent_dispatch.server.cancel_notices import CancelNotices
from agent_dispatch.server.elicitation import Forms, can_show_forms, input_required, response_in
from agent_dispatch.server.resources import TEMPLATE, read_result
from agent_dispatch.server.results import call_result, written
from agent_dispatch.server.stdio.front_door import HANDSHAKE_VERSIONS
from agent_dispatch.server.tools.agents import (
    ADD_AGENT,
    CACHE_CLEAR,
    CACHE_STATS,
    INSPECT_AGENT,
    LIST_AGENTS,
    REMOVE_AGENT,
    UPDATE_AGENT,
)
from agent_dispatch.server.tools.dialogue import DISPATCH_DIALOGUE
from agent_dispatch.server.tools.dispatch import DISPATCH, DISPATCH_SESSION, DISPATCH_STREAM
from agent_dispatch.server.tools.jobs import (
    DISPATCH_ASYNC,
    DISPATCH_CANCEL,
    DISPATCH_GC,
    DISPATCH_JOBS,
    DISPATCH_SEND,
    DISPATCH_STATUS,
    DISPATCH_WAIT,
    FETCH_RESULT,
)
from agent_dispatch.server.tools.parallel import DISPATCH_PARALLEL

ArrivedAt = Callable[[types.RequestId | None], float]

SERVER_NAME = "agent-dispatch"
_SESSION = "claudecode/sessionId"
"""In `_meta` of a request: the session of Claude Code, where it is not that of the environment."""
TOOLS: Sequence[Tool[Any]] = (
    LIST_AGENTS,
    INSPECT_AGENT,
    DISPATCH,
    DISPATCH_SESSION,
    DISPATCH_PARALLEL,
    DISPATCH_STREAM,
    DISPATCH_DIALOGUE,
    DISPATCH_ASYNC,
    DISPATCH_STATUS,
    DISPATCH_WAIT,
    DISPATCH_SEND,
    DISPATCH_CANCEL,
    DISPATCH_JOBS,
    DISPATCH_GC,
    FETCH_RESULT,
    ADD_AGENT,
    UPDATE_AGENT,
    REMOVE_AGENT,
    CACHE_STATS,
    CACHE_CLEAR,
)

# Claude Code shows its model the first 2 KiB: what matters first.
INSTRUCTIONS = """\
Delegate tasks to agents: Claude Code sessions in other project directories, each with its own \
CLAUDE.md, MCP servers and tools.

1. list_agents() first: names, what each agent can do, whether it is healthy.
2. dispatch(agent, task, caller=<your project>, goal=<broader objective>). The agent knows nothing \
of your conversation: put what it needs into task and context.
3. Check `success`. If false, branch on `error_type`; `error` says what to do:
   permission - a tool was denied: ask your user to grant what `error` names, then retry; rights \
are not yours to grant
   timeout - dispatch_session(agent, "Continue where you left off", session_id), or a larger \
timeout_seconds, or dispatch_async
   not_found - the directory or the claude command is missing
   recursion - do not dispatch any further
   auth, usage_limit, budget - tell the user; anything else - read `error`
   `denied_tools` with success: the answer may be incomplete.

A follow-up: dispatch_session(agent, task, session_id=<of the answer>); the agent remembers. \
Several tasks at once: dispatch_parallel (several dispatch calls run one after the other), with \
aggregate=<agent> for one answer of all. Two agents that work something out: dispatch_dialogue.

A task of minutes: dispatch_async(...) answers a job_id at once; go on with \
your work, then dispatch_wait(job_id) gives the result (dispatch_status looks without waiting, \
dispatch_send tells the agent more, dispatch_cancel ends it). Such a job outlives this session, \
and any session can fetch it; dispatch_jobs(mine=true) lists yours. Every answer has a job_id, by \
which fetch_result(ref) gives it again; an answer with `truncated` goes on there. return_ref=true \
on dispatch gives a summary only.

Dispatch when a task needs another project's files, tools or knowledge; do it yourself when you \
can: a dispatch is a whole session and costs money. inspect_agent(name) shows an agent's tools and \
documents without starting it. A wrong call answers {"error": ...} with the fix.
"""


def build_server(
    service: Service | DispatchError,
    tools: Sequence[Tool[Any]] = TOOLS,
    *,
    arrived_at: ArrivedAt = lambda _request_id: trio.current_time(),
) -> Server[Ongoing]:
    """The server over `service`, ready for `Server.run` or the library's in-memory client.

    Args:
        service: What the tools work with, or why there is none.
        tools: The tools that are offered.
        arrived_at: Says when a request came, on Trio's clock.
    """
    toolbox = Toolbox(service, tools)
    job_tasks = tasks.Tasks(service)
    notices = CancelNotices()
    listing = types.ListToolsResult(
        tools=[types.Tool.model_validate(entry) for entry in toolbox.listing()]
    )

    @asynccontextmanager
    async def open_ongoing(_server: Server[Ongoing]) -> AsyncIterator[Ongoing]:
        async with trio.open_nursery() as nursery:
            yield Ongoing(nursery, service)
            nursery.cancel_scope.cancel()

    async def list_tools(
        ctx: ServerRequestContext[Any], params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        await trio.lowlevel.checkpoint()
        return listing

    async def call_tool(
        ctx: ServerRequestContext[Ongoing], params: types.CallToolRequestParams
    ) -> types.CallToolResult | dict[str, Any]:
        async def report(number: float, message: str) -> None:
            await ctx.session.report_progress(number, message=message)

        caller, ongoing = _caller(ctx, arrived_at), ctx.lifespan_context
        REQUEST_SESSION.set(_session_of(ctx))
        with notices.noted(ctx, caller), _forms_for(ctx, caller, service):
            answer = await toolbox.call(params.name, params.arguments, report, caller, ongoing)
        if answer.asks is not None:
            return input_required(answer.asks)
        if answer.task_id is not None:
            return tasks.created(ctx, await job_tasks.job(answer.task_id))
        return call_result(answer, ctx.protocol_version)

    async def call_as_task(
        ctx: ServerRequestContext[Ongoing], call_next: CallNext
    ) -> HandlerResult:
        """Answer a call that becomes an older task: the library refuses such answers of a tool."""
        name = (ctx.params or {}).get("name")
        if ctx.method != "tools/call" or not tasks.wants_task(ctx):
            return await call_next(ctx)
        if not isinstance(name, str) or not toolbox.may_be_task(name):
            return await call_next(ctx)
        params = types.CallToolRequestParams.model_validate(ctx.params, by_name=False)
        result = await call_tool(ctx, params)
        return result if isinstance(result, dict) else written(result, ctx.protocol_version)

    async def list_resources(
        ctx: ServerRequestContext[Any], params: types.PaginatedRequestParams | None
    ) -> types.ListResourcesResult:
        await trio.lowlevel.checkpoint()
        return types.ListResourcesResult(resources=[])

    async def list_templates(
        ctx: ServerRequestContext[Any], params: types.PaginatedRequestParams | None
    ) -> types.ListResourceTemplatesResult:
        await trio.lowlevel.checkpoint()
        return types.ListResourceTemplatesResult(resource_templates=[TEMPLATE])

    async def read_resource(
        ctx: ServerRequestContext[Any], params: types.ReadResourceRequestParams
    ) -> types.ReadResourceResult:
        modern = ctx.protocol_version not in HANDSHAKE_VERSIONS
        return await read_result(service, params.uri, modern=modern)

    server = _Server(
        SERVER_NAME,
        lifespan=open_ongoing,
        version=agent_dispatch.__version__,
        instructions=INSTRUCTIONS,
        on_list_tools=list_tools,
        # Its type knows no tasks; its code passes on the results of extensions.
        on_call_tool=cast("Any", call_tool),
        on_list_resources=list_resources,
        on_list_resource_templates=list_templates,
        on_read_resource=read_resource,
    )
    # Without the library's OpenTelemetry spans, which nothing here exports.
    server.middleware[:] = [notices.listen, _check_call, _declare_tasks, call_as_task]
    server.extensions[tasks.EXTENSION] = {}
    for method, params, handler in job_tasks.handlers():
        server.add_request_handler(method, params, handler)
    return server


async def _declare_tasks(ctx: ServerRequestContext[Any], call_next: CallNext) -> HandlerResult:
    """Declare the older tasks to clients of the one revision that has them."""
    result = await call_next(ctx)
    if ctx.method != "initialize" or not isinstance(result, dict):
        return result
    if result.get("protocolVersion") != tasks.FIRST_VERSION:
        result["capabilities"].pop("tasks", None)
    return result


class _Server(Server[Ongoing]):
    """The library's server, which knows the older tasks as types only."""

    def create_initialization_options(self, *args: Any, **kwargs: Any) -> InitializationOptions:
        options = super().create_initialization_options(*args, **kwargs)
        capabilities = options.capabilities.model_copy(update={"tasks": tasks.capabilities()})
        return options.model_copy(update={"capabilities": capabilities})


def _caller(ctx: ServerRequestContext[Any], arrived_at: ArrivedAt) -> Caller:
    client = ctx.session.client_params
    task = TaskWish.NONE
    if tasks.wants_task(ctx):
        task = TaskWish.AT_ONCE
    elif tasks.takes_tasks(ctx):
        task = TaskWish.IF_LONG
    shows_forms = ShowsForms.NO
    if can_show_forms(ctx):
        shows_forms = ShowsForms.BY_RETRY if tasks.is_modern(ctx) else ShowsForms.IN_CALL
    return Caller(
        task=task,
        client=client.client_info.name if client else "",
        shows_forms=shows_forms,
        response=response_in(ctx) if tasks.is_modern(ctx) else None,
        arrived_at=arrived_at(ctx.request_id),
    )


@contextmanager
def _forms_for(
    ctx: ServerRequestContext[Ongoing], caller: Caller, service: Service | DispatchError
) -> Iterator[None]:
    """Show forms during a call of the older era, and take them back at its end."""
    if caller.shows_forms is not ShowsForms.IN_CALL or isinstance(service, DispatchError):
        yield
        return
    forms = Forms(ctx.lifespan_context.nursery, ctx, service)
    caller.show, caller.accepts = forms.on_progress, forms.accepts
    try:
        yield
    finally:
        forms.close()


def _session_of(ctx: ServerRequestContext[Any]) -> str | None:
    """Return the client's session, if the request names it."""
    session = dict(ctx.meta or {}).get(_SESSION)
    return session if isinstance(session, str) and session else None


def _refuse(ctx: ServerRequestContext[Any], message: str) -> dict[str, Any]:
    return written(call_result(refusal(message)), ctx.protocol_version)


async def _check_call(ctx: ServerRequestContext[Any], call_next: CallNext) -> HandlerResult:
    """Answer a tool call whose shape the library would refuse without saying what is wrong."""
    if ctx.method == "tools/call":
        params = ctx.params or {}
        if not isinstance(params.get("name"), str):
            return _refuse(ctx, "A tool call needs `name`, the tool's name as text.")
        if not isinstance(params.get("arguments"), dict | None):
            return _refuse(ctx, "`arguments` of a tool call must be an object.")
    return await call_next(ctx)
