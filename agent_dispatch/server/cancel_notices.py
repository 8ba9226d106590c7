"""Why a client cancelled a call: the MCP library cancels it and does not tell it the reason.

A middleware of the library's sees each cancel notice, right after the cancellation itself.
"""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mcp.server.context import CallNext, HandlerResult, ServerRequestContext

from agent_dispatch.server.calls.pending import Caller, Ongoing

_CANCELLED = "notifications/cancelled"
_SESSION_HEADER = "mcp-session-id"
_REMEMBERED = 16

_Key = tuple[str | None, str]
"""Names a request: over HTTP, each session numbers its own."""


class CancelNotices:
    """The calls of one server that may be cancelled, and what was said when they were."""

    def __init__(self) -> None:
        self._callers: dict[_Key, Caller] = {}
        self._answered: OrderedDict[_Key, Caller] = OrderedDict()
        """The last ones that were answered: their clock may pass before they have the answer."""

    @contextmanager
    def noted(self, ctx: ServerRequestContext[Any], caller: Caller) -> Iterator[None]:
        """Note in `caller` why the request of `ctx` is cancelled, for as long as the block runs."""
        key = _key(ctx, ctx.request_id)
        self._callers[key] = caller
        try:
            yield
        finally:
            if self._callers.get(key) is caller:
                del self._callers[key]
            if caller.answered is not None:
                self._answered[key] = caller
                if len(self._answered) > _REMEMBERED:
                    self._answered.popitem(last=False)

    async def listen(
        self, ctx: ServerRequestContext[Ongoing], call_next: CallNext
    ) -> HandlerResult:
        """Take note of cancel notices: a middleware of the library's."""
        if ctx.method == _CANCELLED:
            said = ctx.params or {}
            key = _key(ctx, said.get("requestId"))
            caller = self._callers.get(key) or self._answered.pop(key, None)
            if caller is not None:
                reason = said.get("reason")
                caller.left_because = reason if isinstance(reason, str) else ""
                if caller.left_by_clock:
                    ctx.lifespan_context.take_back(caller)
        return await call_next(ctx)


def _key(ctx: ServerRequestContext[Any], request_id: object) -> _Key:
    session = None if ctx.request is None else ctx.request.headers.get(_SESSION_HEADER)
    return session, str(request_id)
