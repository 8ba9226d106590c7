"""A permission question: a tool call that an agent may only make if a person allows it."""

from enum import StrEnum
from typing import Any

import msgspec

ASK_USER = "AskUserQuestion"
"""The tool by which a model asks its user; a dispatch has no form for it."""
ANSWER_MAIL = "answer"
"""The kind of mail that carries an answer to the owner of a job."""


class Verdict(StrEnum):
    """How a question was settled; the first two are answers of a person."""

    ALLOW = "allow"
    DENY = "deny"
    UNANSWERED = "unanswered"
    """Nobody answered in time, so the call was denied; it can still be answered."""
    WITHDRAWN = "withdrawn"
    """The agent no longer asks, because its turn or its job has ended."""

    @property
    def is_answer(self) -> bool:
        """Whether a person answered."""
        return self in (Verdict.ALLOW, Verdict.DENY)


class AnsweredBy(StrEnum):
    """Where a person answered."""

    TERMINAL = "terminal"
    CLI = "cli"
    ELICITATION = "elicitation"
    TASK = "task"


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """An open question."""

    id: str
    tool: str
    input: Any
    """The exact input of the tool call."""
    asked_at: float
    """Seconds since the epoch."""
    agent: str


class PastQuestion(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A closed question."""

    id: str
    tool: str
    input: Any
    asked_at: float
    agent: str
    answer: Verdict
    answered_by: AnsweredBy | None = None
    """None: nobody answered."""
    answered_at: float | None = None


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A person's answer on its way to the owner of the job."""

    question: str
    """The id of the question."""
    answer: Verdict
    answered_by: AnsweredBy


def closed(
    question: Question, verdict: Verdict, by: AnsweredBy | None = None, at: float | None = None
) -> PastQuestion:
    """Return the question as closed by a verdict."""
    fields = msgspec.structs.asdict(question)
    return PastQuestion(**fields, answer=verdict, answered_by=by, answered_at=at)


def same_input(one: object, other: object) -> bool:
    """Tell whether two inputs are the same JSON: 1 is neither 1.0 nor true."""
    encode = msgspec.json.Encoder(order="deterministic").encode
    return encode(one) == encode(other)
