"""The tool that gives several tasks at once."""

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from agent_dispatch.core.inline import INLINE_CHARS, inline, inline_all
from agent_dispatch.core.next_step import told
from agent_dispatch.core.parallel import read_members
from agent_dispatch.model.answer import ResultRef
from agent_dispatch.model.dispatch import DispatchResult, OnProgress
from agent_dispatch.model.parallel import ParallelAnswer
from agent_dispatch.run.service import Service
from agent_dispatch.server.next_steps import in_tools
from agent_dispatch.server.tools import Tool
from agent_dispatch.server.tools_dispatch import WHOLE_RESULT_CHARS


class ParallelParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
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
) -> Sequence[DispatchResult | ResultRef] | ParallelAnswer:
    """Run all; one that fails is a result among the others."""
    members = read_members(params.dispatches)
    outcome = await service.parallel(members, params.aggregate, on_progress)
    summaries = [member.summary_chars if member.ref else None for member in members]
    results = [told(result, in_tools) for result in outcome.individual_results]
    if outcome.aggregated is None:
        return inline_all(results, summaries)
    # What was asked for is this one: it has half of the room or more, the others what it leaves.
    others_chars = sum(len(result.result) for result in results)
    room_chars = max(INLINE_CHARS // 2, INLINE_CHARS - others_chars)
    aggregated = inline(told(outcome.aggregated, in_tools), room_chars)
    room_chars = INLINE_CHARS - len(aggregated.result)
    return ParallelAnswer(
        individual_results=inline_all(results, summaries, room_chars),
        aggregated=aggregated,
    )


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
    destructive=True,
    open_world=True,
    reports_progress=True,
    waits=True,
    max_result_chars=WHOLE_RESULT_CHARS,
)
