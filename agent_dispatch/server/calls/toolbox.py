"""All tools over one service: finds the tool, checks the arguments, wraps the answer.

Whatever goes wrong with a call becomes an answer here, so nothing that a client sends can end the
server. Knows nothing of the MCP library.
"""

import logging
from collections.abc import Sequence
from typing import Any

import trio

from agent_dispatch.core.next_step import worded_error
from agent_dispatch.core.request.arguments import ArgumentDecoder, nearest_name
from agent_dispatch.errors import DispatchError
from agent_dispatch.model.dispatch import OnProgress, ignore_progress
from agent_dispatch.run.service import Service
from agent_dispatch.server.calls.caller import Caller
from agent_dispatch.server.calls.envelope import Envelope, refusal, wrapped
from agent_dispatch.server.calls.forms import FormRequest
from agent_dispatch.server.calls.pending import InBackground, PendingCalls
from agent_dispatch.server.calls.progress import Report, report_progress
from agent_dispatch.server.calls.tool_call import ToolCall
from agent_dispatch.server.next_steps import in_tools
from agent_dispatch.server.tools.tool import ParamsT, Tool

logger = logging.getLogger(__name__)

Reply = Envelope | InBackground | FormRequest
"""An answer, a job that goes on as a task, or forms that the client must show first."""


class Toolbox:
    """All tools over one service."""

    def __init__(self, service: Service | DispatchError, tools: Sequence[Tool[Any]]) -> None:
        """Offer `tools`, in this order; without a service, each call is answered with the error."""
        self._service = service
        self._tools = {tool.name: tool for tool in tools}
        self._decoders = {
            tool.name: ArgumentDecoder(tool.name, tool.params, tool.foreign_arguments)
            for tool in tools
        }

    def may_be_task(self, name: str) -> bool:
        """Whether a call of the tool with that name can become a task."""
        tool = self._tools.get(name)
        return tool is not None and tool.run_detached is not None

    def listing(self) -> list[dict[str, Any]]:
        """Return the entries of `tools/list`."""
        return [tool.listing() for tool in self._tools.values()]

    async def call(
        self, name: str, arguments: object, report: Report, caller: Caller, pending: PendingCalls
    ) -> Reply:
        """Run one tool; everything but a cancellation becomes an answer.

        Args:
            name: The tool's name, as the client wrote it.
            arguments: Of any shape, as the client sent them.
            report: Sends one progress message; may wait as long as the client takes.
            caller: The client behind the call.
            pending: Runs work that may go on when its caller leaves.
        """
        tool = self._tools.get(name)
        if tool is None:
            known = ", ".join(self._tools)
            hint = nearest_name(name, self._tools)
            return refusal(f"Unknown tool: {name[:60]!r}{hint}. Available: {known}")
        try:
            params = self._decoders[name].decode(arguments)
        except DispatchError as error:
            return refusal(worded_error(error, in_tools))
        try:
            if not tool.reports_progress:
                return await self._answer(tool, params, caller, pending, ignore_progress)
            async with report_progress(report, tool.title) as on_progress:
                return await self._answer(tool, params, caller, pending, on_progress)
        except BaseExceptionGroup as group:
            failure = group
        # The MCP library takes a plain `Cancelled` for a cancellation, but not a group of them.
        await trio.lowlevel.checkpoint_if_cancelled()
        raise failure

    async def _answer(
        self,
        tool: Tool[ParamsT],
        params: ParamsT,
        caller: Caller,
        pending: PendingCalls,
        on_progress: OnProgress,
    ) -> Reply:
        try:
            if isinstance(self._service, DispatchError):
                return refusal(worded_error(self._service, in_tools))
            if not tool.creates_config:
                await self._service.require_config()
            call = ToolCall(tool, params, self._service, pending, caller, on_progress)
            answer = await call.run()
            return answer if isinstance(answer, InBackground | FormRequest) else wrapped(answer)
        except DispatchError as error:
            return refusal(worded_error(error, in_tools))
        except Exception as error:
            _log_bug(tool.name, error)
            return refusal(
                f"Bug in agent-dispatch: {tool.name} failed with {type(error).__name__}: {error}."
                " Whether it took effect is not known. The traceback is in the server's log"
                " (stderr of `agent-dispatch serve`); please report it."
            )
        except BaseExceptionGroup as group:
            # A nursery that was cancelled while something in it failed.
            _, bugs = group.split(trio.Cancelled)
            if isinstance(bugs, ExceptionGroup):
                _log_bug(tool.name, bugs)
            raise


def _log_bug(tool: str, error: Exception) -> None:
    logger.error("bug in agent-dispatch: %s failed", tool, exc_info=error)
