"""The tools that give one task to one agent and wait for the answer."""

from typing import Annotated, Any

import msgspec

from agent_dispatch.core.next_step import worded
from agent_dispatch.core.request.checks import schema_text
from agent_dispatch.core.request.timeout import call_timeout_s
from agent_dispatch.model.dispatch import CallOptions, DispatchRequest, DispatchResult, OnProgress
from agent_dispatch.model.replies import ResultRef
from agent_dispatch.run.service import Service
from agent_dispatch.server.inline.result import inline, refer
from agent_dispatch.server.next_steps import in_tools
from agent_dispatch.server.tools.tool import Params, Tool

AgentName = Annotated[str, msgspec.Meta(description="Agent name from list_agents")]
Context = Annotated[str, msgspec.Meta(description="Error messages, code, stack traces that help")]
Caller = Annotated[
    str, msgspec.Meta(description="Your project or role, so the agent knows who asks")
]
Goal = Annotated[str, msgspec.Meta(description="The broader objective, for better trade-offs")]
Group = Annotated[
    str, msgspec.Meta(description="Group of the agent, for its shared context (see list_agents)")
]
TimeoutSeconds = Annotated[
    int, msgspec.Meta(description="Timeout of this call (10-7200); 0 = the agent's own")
]
Model = Annotated[str, msgspec.Meta(description="Empty = the agent's own")]
Effort = Annotated[
    str, msgspec.Meta(description="low, medium, high, xhigh or max; empty = the agent's own")
]
Verify = Annotated[
    bool, msgspec.Meta(description="Have the agent's verify command decide about success")
]
JsonSchema = Annotated[
    dict[str, Any] | str,
    msgspec.Meta(description="JSON Schema that the answer has to fit; it comes as parsed_result"),
]

SESSION_ARGUMENT = {"session_id": " (to continue a session, call dispatch_session with it)"}
"""The argument of `dispatch_session` in a call of another tool."""


class TaskParams(Params, frozen=True):
    """Arguments of every tool that gives one task to one agent."""

    agent: AgentName
    task: Annotated[
        str,
        msgspec.Meta(
            description="What to do. Be specific: the agent knows nothing of your conversation"
        ),
    ]
    context: Context = ""
    caller: Caller = ""
    goal: Goal = ""
    response_format: Annotated[
        str,
        msgspec.Meta(
            description='"json" asks for one JSON value, which comes as parsed_result; empty = text'
        ),
    ] = ""
    json_schema: JsonSchema = ""
    timeout_seconds: TimeoutSeconds = 0
    group: Group = ""
    model: Model = ""
    effort: Effort = ""
    verify: Verify = False


class DispatchParams(TaskParams, frozen=True):
    """Arguments of `dispatch`."""

    return_ref: Annotated[
        bool,
        msgspec.Meta(description="Return a ref and a summary; fetch_result(ref) gives the text"),
    ] = False
    summary_chars: Annotated[int, msgspec.Meta(description="Length of the summary")] = 500
    fresh: Annotated[bool, msgspec.Meta(description="Run it now; no cached answer")] = False


class SessionParams(Params, frozen=True):
    """Arguments of `dispatch_session`."""

    agent: AgentName
    task: Annotated[str, msgspec.Meta(description="The first task, or what comes next")]
    session_id: Annotated[
        str, msgspec.Meta(description="From the previous answer; empty starts a session")
    ] = ""
    context: Context = ""
    caller: Caller = ""
    goal: Goal = ""
    json_schema: JsonSchema = ""
    timeout_seconds: TimeoutSeconds = 0
    model: Model = ""
    effort: Effort = ""
    verify: Verify = False


async def dispatch(
    service: Service, params: TaskParams | SessionParams, on_progress: OnProgress
) -> DispatchResult | ResultRef:
    """Run one task; a failed run is a result too."""
    options = _options(params)
    result = await service.dispatch(request_from(params), on_progress, options)
    return _answer(result, options.summary_chars)


async def dispatch_detached(
    service: Service, params: TaskParams | SessionParams, on_progress: OnProgress
) -> DispatchResult | ResultRef:
    """Do the same as a background job."""
    options = _options(params)
    result = await service.dispatch_detached(request_from(params), on_progress, options)
    return _answer(result, options.summary_chars)


def request_from(params: TaskParams | SessionParams) -> DispatchRequest:
    """Convert arguments into the names and units of the program."""
    session_id: str | None = None
    response_format = group = ""
    if isinstance(params, SessionParams):
        session_id = params.session_id or None
    else:
        response_format, group = params.response_format, params.group
    return DispatchRequest(
        agent=params.agent,
        task=params.task,
        context=params.context,
        caller=params.caller,
        goal=params.goal,
        response_format=response_format,
        json_schema=schema_text(params.json_schema),
        timeout_s=call_timeout_s(params.timeout_seconds),
        session_id=session_id,
        group=group,
        model=params.model,
        effort=params.effort,
        verify=params.verify,
    )


def _options(params: TaskParams | SessionParams) -> CallOptions:
    """Only `dispatch` itself uses the cache and shares runs with other calls."""
    if not isinstance(params, DispatchParams):
        return CallOptions(alone=True)
    summary_chars = max(params.summary_chars, 0) if params.return_ref else None
    return CallOptions(ref=params.return_ref, summary_chars=summary_chars, fresh=params.fresh)


def _answer(result: DispatchResult, summary_chars: int | None) -> DispatchResult | ResultRef:
    result = worded(result, in_tools)
    return inline(result) if summary_chars is None else refer(result, summary_chars)


DISPATCH = Tool(
    name="dispatch",
    title="Dispatch a task",
    foreign_arguments=SESSION_ARGUMENT,
    description=(
        "Give one task to an agent: a Claude Code session in that agent's project directory, with"
        " its CLAUDE.md, MCP servers and tools. Waits for the answer; if it only read, the same"
        " call within minutes is answered from the cache. Several in one turn run one after the"
        " other: use dispatch_parallel. Check `success`; if it is false, `error_type` says why and"
        " `error` what to do. `denied_tools` with success: the answer may be incomplete."
    ),
    params=DispatchParams,
    run=dispatch,
    run_detached=dispatch_detached,
    destructive=True,
    open_world=True,
    reports_progress=True,
    large_answers=True,
)

DISPATCH_SESSION = Tool(
    name="dispatch_session",
    title="Continue a conversation with an agent",
    description=(
        "Give an agent a task in a conversation. Without session_id it starts one; with the"
        " session_id of an earlier answer the agent remembers what was said, also after a"
        ' timeout (task="Continue where you left off"). One run at a time per session. Never'
        " cached. Other parameters as in dispatch."
    ),
    params=SessionParams,
    described_by=DispatchParams,
    run=dispatch,
    run_detached=dispatch_detached,
    destructive=True,
    open_world=True,
    reports_progress=True,
    large_answers=True,
)

DISPATCH_STREAM = Tool(
    name="dispatch_stream",
    title="Dispatch a task, with live progress",
    foreign_arguments=SESSION_ARGUMENT,
    description="dispatch without the cache; parameters as there.",
    params=TaskParams,
    described_by=DispatchParams,
    run=dispatch,
    run_detached=dispatch_detached,
    destructive=True,
    open_world=True,
    reports_progress=True,
    large_answers=True,
)
