"""A dialogue with an agent on another host: each turn is a dispatch of its own."""

from collections.abc import Awaitable, Callable

import msgspec
import trio

from agent_dispatch.core.dialogue.exchange import Exchange, timeout_error
from agent_dispatch.core.next_step import more_time
from agent_dispatch.core.stream.progress_text import with_agent
from agent_dispatch.model.dialogue import DialogueRequest, DialogueResult, Role
from agent_dispatch.model.dispatch import (
    DispatchRequest,
    DispatchResult,
    ErrorType,
    OnProgress,
    Progress,
)

DispatchTurn = Callable[[DispatchRequest, OnProgress], Awaitable[DispatchResult]]


async def dialogue_across_hosts(
    request: DialogueRequest, dispatch: DispatchTurn, on_progress: OnProgress
) -> DialogueResult:
    """Let two agents talk; if cancelled, the turn that goes on is cancelled too."""
    began, exchange = trio.current_time(), Exchange(request)
    sessions: dict[Role, str] = {}
    job_id: str | None = None
    while (turn := exchange.next_turn()) is not None:
        left_s: float | None = None
        if request.timeout_s is not None:
            left_s = began + request.timeout_s - trio.current_time()
            if left_s <= 0:
                longer = more_time(request.timeout_s)
                exchange.stop(timeout_error(request.timeout_s), ErrorType.TIMEOUT, [longer])
                break
        on_progress(with_agent(turn.agent, Progress(f"round {turn.round}, as {turn.role}"), 0))
        result = await dispatch(
            DispatchRequest(
                agent=turn.agent,
                task=turn.prompt,
                timeout_s=left_s,
                session_id=sessions.get(turn.role),
                words_only=True,
            ),
            on_progress,
        )
        job_id = result.job_id or job_id
        if not result.success:
            exchange.fail(turn, result)
            break
        exchange.add(turn, result)
        if result.session_id is not None:
            sessions[turn.role] = result.session_id
    ended = exchange.result(round((trio.current_time() - began) * 1000))
    return msgspec.structs.replace(ended, job_id=job_id)
