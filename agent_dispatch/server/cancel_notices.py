"""The reasons in clients' cancel notices: the MCP library cancels a call but does not pass them on.

A middleware of the library sees each notice right after the cancellation.
"""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mcp.server.context import CallNext, HandlerResult, ServerRequestContext

from agent_dispatch.server.calls.caller import Caller
from agent_dispatch.server.calls.pending import PendingCalls

_CANCELLED = "notifications/cancelled"
_SESSION_HEADER = "mcp-session-id"
_REMEMBERED = 16

_Key = tuple[str | None, str]
"""The session (over HTTP, each session numbers its own requests) and the id of the request."""


class CancelNotices:
    """The calls of one server for which a cancel notice may come."""

    def __init__(self) -> None:
        self._callers: dict[_Key, Caller] = {}
        self._answered: OrderedDict[_Key, Caller] = OrderedDict()
        """The last callers that were answered: they may time out before the answer arrives."""

    @contextmanager
    def noted(self, ctx: ServerRequestContext[Any], caller: Caller) -> Iterator[None]:
        """Set `caller.cancel_reason` if a notice for the request of `ctx` comes in this block."""
        key = _key(ctx, ctx.request_id)
        self._callers[key] = caller
        try:
            yield
        finally:
            if self._callers.get(key) is caller:
                del self._callers[key]
            if caller.given is not None:
                self._answered[key] = caller
                if len(self._answered) > _REMEMBERED:
                    self._answered.popitem(last=False)

    async def listen(
        self, ctx: ServerRequestContext[PendingCalls], call_next: CallNext
    ) -> HandlerResult:
        """Read cancel notices, as a middleware of the library."""
        if ctx.method == _CANCELLED:
            params = ctx.params or {}
            key = _key(ctx, params.get("requestId"))
            caller = self._callers.get(key) or self._answered.pop(key, None)
            if caller is not None:
                reason = params.get("reason")
                caller.cancel_reason = reason if isinstance(reason, str) else ""
                if caller.timed_out:
                    ctx.lifespan_context.take_back(caller)
        return await call_next(ctx)


def _key(ctx: ServerRequestContext[Any], request_id: object) -> _Key:
    session = None if ctx.request is None else ctx.request.headers.get(_SESSION_HEADER)
    return session, str(request_id)
