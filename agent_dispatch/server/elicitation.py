"""Forms that a client shows its user: what they say, and how they are shown in the older era.

A form has no field. To accept it allows what it says, to decline it denies that, and to close it
decides nothing. In the newer era a form is part of an answer (`input_required`), and the client
repeats its call with the response.
"""

from collections.abc import Mapping
from typing import Any

import trio
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError

from agent_dispatch.core.agents.rights import WideningError
from agent_dispatch.errors import DispatchError
from agent_dispatch.model.dispatch import Progress
from agent_dispatch.model.question import AnsweredBy, Question
from agent_dispatch.run.service import Service
from agent_dispatch.server.calls.form_texts import question_text, widening_text
from agent_dispatch.server.calls.forms import VERDICTS, Asks, Response

_NO_FIELDS: dict[str, Any] = {"type": "object", "properties": {}}


def as_request(message: str) -> dict[str, Any]:
    """A form as it stands in an answer of the newer era."""
    params = {"mode": "form", "message": message, "requestedSchema": _NO_FIELDS}
    return {"method": "elicitation/create", "params": params}


class Forms:
    """The forms of one call in the older era, in which the server sends requests to its client."""

    def __init__(
        self, nursery: trio.Nursery, ctx: ServerRequestContext[Any], service: Service
    ) -> None:
        """Show forms on behalf of the call of `ctx`, and give the answers to `service`."""
        self._nursery = nursery
        self._ctx = ctx
        self._service = service
        self._shown: dict[str, dict[str, trio.CancelScope]] = {}
        """By the ids of job and question: the scope of each form that was shown."""

    def on_progress(self, progress: Progress) -> None:
        """Show a form for each new question, and take back those that are closed."""
        if progress.questions is None or progress.job_id is None:
            return
        shown = self._shown.setdefault(progress.job_id, {})
        waiting = {question.id: question for question in progress.questions}
        for question_id, scope in shown.items():
            if question_id not in waiting:
                scope.cancel()
        for question_id, question in waiting.items():
            if question_id not in shown:
                shown[question_id] = trio.CancelScope()
                self._nursery.start_soon(self._ask, progress.job_id, question, shown[question_id])

    async def _ask(self, job_id: str, question: Question, scope: trio.CancelScope) -> None:
        with scope:
            verdict = VERDICTS.get(await self._show(question_text(question)))
            if verdict is not None:
                try:
                    await self._service.answer(job_id, verdict, AnsweredBy.ELICITATION, question.id)
                except DispatchError:
                    return  # Another answer was faster; the record says whose.

    async def accepts(self, error: WideningError) -> bool:
        """Ask whether a change may be made that gives more rights."""
        return await self._show(widening_text(error)) == "accept"

    async def _show(self, message: str) -> str:
        """Show a form, and say what its user did; a client that cannot show it closed it."""
        try:
            answer = await self._ctx.session.elicit_form(
                message, _NO_FIELDS, related_request_id=self._ctx.request_id
            )
        except MCPError:
            return "cancel"
        return answer.action

    def close(self) -> None:
        """Take back all forms: the call is answered."""
        for shown in self._shown.values():
            for scope in shown.values():
                scope.cancel()


def can_show_forms(ctx: ServerRequestContext[Any]) -> bool:
    """Whether the client of a request declares that it can show forms."""
    capabilities = ctx.session.client_capabilities
    elicitation = None if capabilities is None else capabilities.elicitation
    # Before 2025-11-25 there was one kind of elicitation, and so no name for it.
    return elicitation is not None and (elicitation.form is not None or elicitation.url is None)


def response_in(ctx: ServerRequestContext[Any]) -> Response | None:
    """What a repeated call brings; None for one that repeats none."""
    params = ctx.params or {}
    state, responses = params.get("requestState"), params.get("inputResponses")
    if not isinstance(state, str):
        return None
    actions: dict[str, str] = {}
    for key, response in (responses if isinstance(responses, Mapping) else {}).items():
        action = response.get("action") if isinstance(response, Mapping) else None
        actions[key] = action if isinstance(action, str) else ""
    return Response(state, actions)


def input_required(asks: Asks) -> dict[str, Any]:
    """The answer that has its client show forms and repeat the call."""
    return {
        "resultType": "input_required",
        "inputRequests": {key: as_request(message) for key, message in asks.requests.items()},
        "requestState": asks.state,
    }
