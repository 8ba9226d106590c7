"""Forms: what they say to a client's user, and what the user's response means.

A form has no field. Accepting it allows what it says, declining it denies that, and closing it
decides nothing. In the older protocol era the server shows forms while a call goes on. In the newer
one an answer asks for them, and the client repeats its call with the responses.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from agent_dispatch.core.agents.rights import WideningError
from agent_dispatch.core.questions import NoQuestionError, shown_input, shown_text
from agent_dispatch.errors import InvalidRequestError
from agent_dispatch.model.question import AnsweredBy, Question, Verdict
from agent_dispatch.run.service import Service

ACCEPT = "accept"
_VERDICTS = {ACCEPT: Verdict.ALLOW, "decline": Verdict.DENY}
"""The verdict for each action of a user; any other action leaves a question open."""


def question_text(question: Question) -> str:
    """Return what a form says about a permission question."""
    return (
        f"Agent {question.agent!r} asks for a permission: {shown_text(question.tool)}"
        f"\n{shown_input(question.input)}\nNone of its rules allows this call. Accept allows it,"
        " once."
    )


def widening_text(error: WideningError) -> str:
    """Return what a form says about a change that gives an agent more rights."""
    changes = "\n".join(f"{key}: {shown_text(change)}" for key, change in error.changes.items())
    return f"Give agent {error.agent!r} more rights?\n{changes}\nAccept makes the change."


async def pass_on(
    service: Service, job_id: str, actions: Mapping[str, str], by: AnsweredBy
) -> None:
    """Answer the questions of a job with a user's actions, given by the id of the question.

    Raises:
        DispatchError: An answer cannot be delivered.
    """
    for question_id, action in actions.items():
        if (verdict := _VERDICTS.get(action)) is not None:
            # Another answer may be faster; the record names it.
            with suppress(NoQuestionError):
                await service.jobs.answer(job_id, verdict, by, question_id)


class RetryState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the client sends back unchanged with the repeated call.

    It is not signed: with it a client can do nothing that it could not do anyway.
    """

    call: str
    """The key of the call, so that a response counts for no other call."""
    job_id: str = ""
    """The job of the call; empty if the call asks for more rights."""
    asked: tuple[str, ...] = ()
    """The ids of the questions that the user has seen."""

    def encode(self) -> str:
        """Return the state as text."""
        return msgspec.json.encode(self).decode()


@dataclass(frozen=True, slots=True)
class FormRequest:
    """An answer that makes the client show forms and repeat its call with the responses."""

    texts: Mapping[str, str]
    """What each form says, by the key of its response."""
    state: str
    """A `RetryState`."""


@dataclass(frozen=True, slots=True)
class FormResponse:
    """The responses that a repeated call carries."""

    state: str
    actions: Mapping[str, str]
    """The user's action on each form, by its key."""

    def state_of(self, key: bytes) -> RetryState:
        """Return the state, which must belong to the call with this key.

        Raises:
            InvalidRequestError: It does not.
        """
        try:
            state = msgspec.json.decode(self.state, type=RetryState)
        except (msgspec.DecodeError, RecursionError):
            state = None
        if state is None or state.call != key.hex():
            raise InvalidRequestError("requestState does not belong to this call. Leave it out.")
        return state
