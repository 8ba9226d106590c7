"""The MCP server: our tools on the library's low-level `Server`, which speaks both eras."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import mcp_types as types
import trio
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.lowlevel import Server

import agent_dispatch
from agent_dispatch.errors import DispatchError
from agent_dispatch.run.service import Service
from agent_dispatch.server.cancel_notices import CancelNotices
from agent_dispatch.server.front_door import HANDSHAKE_VERSIONS
from agent_dispatch.server.ongoing import Caller, Ongoing
from agent_dispatch.server.resources import TEMPLATE, link_to, read_result
from agent_dispatch.server.tools import Answer, Tool, Toolbox, refusal
from agent_dispatch.server.tools_agents import (
    ADD_AGENT,
    CACHE_CLEAR,
    CACHE_STATS,
    INSPECT_AGENT,
    LIST_AGENTS,
    REMOVE_AGENT,
    UPDATE_AGENT,
)
from agent_dispatch.server.tools_dialogue import DISPATCH_DIALOGUE
from agent_dispatch.server.tools_dispatch import DISPATCH, DISPATCH_SESSION, DISPATCH_STREAM
from agent_dispatch.server.tools_jobs import (
    DISPATCH_ASYNC,
    DISPATCH_CANCEL,
    DISPATCH_GC,
    DISPATCH_JOBS,
    DISPATCH_SEND,
    DISPATCH_STATUS,
    DISPATCH_WAIT,
    FETCH_RESULT,
)
from agent_dispatch.server.tools_parallel import DISPATCH_PARALLEL

SERVER_NAME = "agent-dispatch"
WARNINGS = "agent-dispatch/warnings"
"""In `_meta` of a list: what was passed over for it."""

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
and any session can fetch it. Every answer has a job_id, by which fetch_result(ref) gives it \
again; an answer with `truncated` goes on there. return_ref=true on dispatch gives a summary only.

Dispatch when a task needs another project's files, tools or knowledge; do it yourself when you \
can: a dispatch is a whole session and costs money. inspect_agent(name) shows an agent's tools and \
documents without starting it. A wrong call answers {"error": ...} with the fix.
"""


def build_server(
    service: Service | DispatchError, tools: Sequence[Tool[Any]] = TOOLS
) -> Server[Ongoing]:
    """The server over `service`, ready for `Server.run` or the library's in-memory client."""
    toolbox = Toolbox(service, tools)
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
    ) -> types.CallToolResult:
        async def report(number: float, message: str) -> None:
            await ctx.session.report_progress(number, message=message)

        client = ctx.session.client_params
        caller = Caller(client=client.client_info.name if client else "")
        with notices.noted(ctx, caller):
            answer = await toolbox.call(
                params.name, params.arguments, report, caller, ctx.lifespan_context
            )
        return _result(answer, ctx.protocol_version)

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

    server: Server[Ongoing] = Server(
        SERVER_NAME,
        lifespan=open_ongoing,
        version=agent_dispatch.__version__,
        instructions=INSTRUCTIONS,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        on_list_resources=list_resources,
        on_list_resource_templates=list_templates,
        on_read_resource=read_resource,
    )
    # Without the library's OpenTelemetry spans, which nothing here exports.
    server.middleware[:] = [notices.listen, _check_call]
    return server


async def _check_call(ctx: ServerRequestContext[Any], call_next: CallNext) -> HandlerResult:
    """Answer a tool call whose shape the library would refuse without saying what is wrong."""
    if ctx.method == "tools/call":
        params = ctx.params or {}
        if not isinstance(params.get("name"), str):
            return _result(refusal("A tool call needs `name`, the tool's name as text."))
        if not isinstance(params.get("arguments"), dict | None):
            return _result(refusal("`arguments` of a tool call must be an object."))
    return await call_next(ctx)


def _result(answer: Answer, version: str = "") -> types.CallToolResult:
    content: list[types.ContentBlock] = [types.TextContent(text=answer.text)]
    if answer.ref is not None:
        content += link_to(answer.ref, version)
    return types.CallToolResult(
        _meta={WARNINGS: list(answer.warnings)} if answer.warnings else None,
        content=content,
        structured_content=answer.structured,
        is_error=answer.is_error,
    )
