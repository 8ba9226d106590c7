"""Forms in the terms of the protocol: elicitation in the older era, `input_required` in the newer.

`server.calls.forms` has the texts of the forms and the meaning of the responses.
"""

import logging
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
from agent_dispatch.server.calls.forms import (
    ACCEPT,
    FormRequest,
    FormResponse,
    pass_on,
    question_text,
    widening_text,
)

logger = logging.getLogger(__name__)

_NO_FIELDS: dict[str, Any] = {"type": "object", "properties": {}}
_CANCEL = "cancel"


class Forms:
    """The forms of one call in the older era, in which the server sends requests to its client."""

    def __init__(
        self, nursery: trio.Nursery, ctx: ServerRequestContext[Any], service: Service
    ) -> None:
        """Show forms for the call of `ctx`, and pass the answers on to `service`."""
        self._nursery = nursery
        self._ctx = ctx
        self._service = service
        self._shown: dict[str, dict[str, trio.CancelScope]] = {}
        """The scope of each form that was shown, by the ids of its job and question."""

    def on_progress(self, progress: Progress) -> None:
        """Show a form for each new question, and close those of questions that are gone."""
        if progress.questions is None or progress.job_id is None:
            return
        shown = self._shown.setdefault(progress.job_id, {})
        questions = {question.id: question for question in progress.questions}
        for question_id, scope in shown.items():
            if question_id not in questions:
                scope.cancel()
        for question_id, question in questions.items():
            if question_id not in shown:
                shown[question_id] = trio.CancelScope()
                self._nursery.start_soon(self._ask, progress.job_id, question, shown[question_id])

    async def confirm(self, error: WideningError) -> bool:
        """Ask the user whether a change that gives more rights may be made."""
        return await self._show(widening_text(error)) == ACCEPT

    def close(self) -> None:
        """Close all forms, because the call is answered."""
        for shown in self._shown.values():
            for scope in shown.values():
                scope.cancel()

    async def _ask(self, job_id: str, question: Question, scope: trio.CancelScope) -> None:
        with scope:
            actions = {question.id: await self._show(question_text(question))}
            try:
                await pass_on(self._service, job_id, actions, AnsweredBy.ELICITATION)
            except DispatchError as error:
                logger.warning("a form's answer was not delivered: %s", error)

    async def _show(self, message: str) -> str:
        """Show a form and return the user's action; a client that cannot show it cancels it."""
        try:
            answer = await self._ctx.session.elicit_form(
                message, _NO_FIELDS, related_request_id=self._ctx.request_id
            )
        except MCPError:
            return _CANCEL
        return answer.action


def can_show_forms(ctx: ServerRequestContext[Any]) -> bool:
    """Whether the client of a request declares that it can show forms."""
    capabilities = ctx.session.client_capabilities
    elicitation = None if capabilities is None else capabilities.elicitation
    # Before 2025-11-25 there was one kind of elicitation, and so no name for it.
    return elicitation is not None and (elicitation.form is not None or elicitation.url is None)


def as_request(message: str) -> dict[str, Any]:
    """Return a form as it stands in an answer of the newer era."""
    params = {"mode": "form", "message": message, "requestedSchema": _NO_FIELDS}
    return {"method": "elicitation/create", "params": params}


def input_required(forms: FormRequest) -> dict[str, Any]:
    """Return the answer that makes the client show forms and repeat its call."""
    return {
        "resultType": "input_required",
        "inputRequests": {key: as_request(text) for key, text in forms.texts.items()},
        "requestState": forms.state,
    }


def response_in(ctx: ServerRequestContext[Any]) -> FormResponse | None:
    """Return the responses in a repeated call; None for a call that repeats none."""
    params = ctx.params or {}
    state, responses = params.get("requestState"), params.get("inputResponses")
    if not isinstance(state, str):
        return None
    actions: dict[str, str] = {}
    for key, response in (responses if isinstance(responses, Mapping) else {}).items():
        action = response.get("action") if isinstance(response, Mapping) else None
        actions[key] = action if isinstance(action, str) else ""
    return FormResponse(state, actions)
