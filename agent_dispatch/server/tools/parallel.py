"""The tool that gives several tasks at once: `dispatch_parallel`."""

from typing import Annotated, Any

import msgspec

from agent_dispatch.core.request.parallel import read_members
from agent_dispatch.model.dispatch import OnProgress
from agent_dispatch.run.service import Service
from agent_dispatch.server.inline.job import ParallelReply, answer_of, inline_parallel
from agent_dispatch.server.tools.tool import Params, Tool


class ParallelParams(Params, frozen=True):
    """Arguments of `dispatch_parallel`."""

    dispatches: Annotated[
        str | list[Any],
        msgspec.Meta(
            description=(
                'A list, or the JSON of one, of {"agent", "task", and optionally "context",'
                ' "caller", "goal", "response_format", "json_schema", "return_ref",'
                ' "summary_chars", "timeout_seconds", "group", "model", "effort", "fresh",'
                ' "verify"}, each as for dispatch'
            )
        ),
    ]
    aggregate: Annotated[
        str, msgspec.Meta(description="Agent that makes one answer of all; empty = none")
    ] = ""


async def dispatch_parallel(
    service: Service, params: ParallelParams, on_progress: OnProgress
) -> ParallelReply:
    """Run all tasks; a failed one is a result among the others."""
    members = read_members(params.dispatches)
    outcome = await service.parallel(members, params.aggregate, on_progress)
    return inline_parallel(outcome, members)


async def dispatch_parallel_detached(
    service: Service, params: ParallelParams, on_progress: OnProgress
) -> object:
    """Do the same as one background job."""
    members = read_members(params.dispatches)
    job = await service.parallel_detached(members, params.aggregate, on_progress)
    return answer_of(job)


DISPATCH_PARALLEL = Tool(
    name="dispatch_parallel",
    title="Dispatch several tasks at once",
    description=(
        "Give several tasks to agents at once and wait for all answers, which come in the order of"
        ' the request. One that fails is {"success": false, ...} among them. With `aggregate`, one'
        " agent then combines them: {individual_results, aggregated}."
    ),
    params=ParallelParams,
    run=dispatch_parallel,
    run_detached=dispatch_parallel_detached,
    destructive=True,
    open_world=True,
    reports_progress=True,
    large_answers=True,
)
