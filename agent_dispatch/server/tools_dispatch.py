"""The tools that give work to an agent."""

from typing import Annotated

import msgspec

from agent_dispatch.core.inline import inline, refer
from agent_dispatch.model.answer import ResultRef
from agent_dispatch.model.dispatch import DispatchRequest, DispatchResult, OnProgress
from agent_dispatch.server.ports import Service
from agent_dispatch.server.tools import Tool

MIN_TIMEOUT_S = 10
MAX_TIMEOUT_S = 7200

WHOLE_RESULT_CHARS = 100_000
"""An answer of 40,000 characters, escaped as JSON, must not be cut at the client's 50,000."""


class TaskParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of every tool that gives one task to one agent."""

    agent: Annotated[str, msgspec.Meta(description="Agent name from list_agents")]
    task: Annotated[
        str,
        msgspec.Meta(
            description="What to do. Be specific: the agent knows nothing of your conversation"
        ),
    ]
    context: Annotated[
        str, msgspec.Meta(description="Error messages, code, stack traces that help")
    ] = ""
    caller: Annotated[
        str, msgspec.Meta(description="Your project or role, so the agent knows who asks")
    ] = ""
    goal: Annotated[
        str, msgspec.Meta(description="The broader objective, for better trade-offs")
    ] = ""
    response_format: Annotated[
        str,
        msgspec.Meta(
            description='"json" asks for one JSON value, which comes as parsed_result; empty = text'
        ),
    ] = ""
    timeout_seconds: Annotated[
        int,
        msgspec.Meta(description="Timeout of this call (10-7200); 0 = the agent's own"),
    ] = 0


class DispatchParams(TaskParams, frozen=True):
    """Arguments of `dispatch`."""

    return_ref: Annotated[
        bool,
        msgspec.Meta(description="Answer a ref and a summary; fetch_result(ref) gives the text"),
    ] = False
    summary_chars: Annotated[int, msgspec.Meta(description="Length of the summary")] = 500


async def dispatch(
    service: Service, params: DispatchParams, on_progress: OnProgress
) -> DispatchResult | ResultRef:
    """Run one task; a run that fails is a result too."""
    result = await service.dispatch(request_from(params), on_progress, ref=params.return_ref)
    if params.return_ref:
        return refer(result, max(params.summary_chars, 0))
    return inline(result)


def request_from(params: TaskParams) -> DispatchRequest:
    """What is asked, in the units of the program."""
    return DispatchRequest(
        agent=params.agent,
        task=params.task,
        context=params.context,
        caller=params.caller,
        goal=params.goal,
        response_format=params.response_format,
        timeout_s=timeout_from(params.timeout_seconds),
    )


def timeout_from(timeout_seconds: int) -> float | None:
    """The timeout of one call, brought into its range; None for 0, the agent's own."""
    if timeout_seconds == 0:
        return None
    return float(min(max(timeout_seconds, MIN_TIMEOUT_S), MAX_TIMEOUT_S))


DISPATCH = Tool(
    name="dispatch",
    title="Dispatch a task",
    description=(
        "Give one task to an agent: a separate Claude Code session in that agent's project"
        " directory, with its CLAUDE.md, MCP servers and tools. Waits for the answer and returns"
        " it. Check `success`; if it is false, `error_type` says why and `error` what to do."
        " `denied_tools` with success means the answer may be incomplete."
    ),
    params=DispatchParams,
    run=dispatch,
    result=DispatchResult | ResultRef,
    destructive=True,
    open_world=True,
    reports_progress=True,
    max_result_chars=WHOLE_RESULT_CHARS,
)
