"""A permission question: a tool call that an agent may only make if a person allows it."""

from enum import StrEnum
from typing import Any

import msgspec

ASK_USER = "AskUserQuestion"
"""The tool by which a model asks its user; no dispatch has a form for it."""
ANSWER_MAIL = "answer"
"""The kind of mail that brings an answer to the owner of a job."""


class Verdict(StrEnum):
    """What came of a question; the first two are a person's answer."""

    ALLOW = "allow"
    DENY = "deny"
    UNANSWERED = "unanswered"
    """Nobody answered in time, so the call was denied; it can still be answered."""
    WITHDRAWN = "withdrawn"
    """The agent no longer asks: its turn or its job has ended."""

    @property
    def is_answer(self) -> bool:
        """Whether a person gave it."""
        return self in (Verdict.ALLOW, Verdict.DENY)


class AnsweredBy(StrEnum):
    """The way by which a person answered."""

    TERMINAL = "terminal"
    CLI = "cli"
    ELICITATION = "elicitation"
    TASK = "task"


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A question that is open."""

    id: str
    tool: str
    input: Any
    """What the tool would be given, exactly."""
    asked_at: float
    """Seconds since the epoch."""
    agent: str


class PastQuestion(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A question that is closed."""

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
    """The question with what came of it."""
    return PastQuestion(
        id=question.id,
        tool=question.tool,
        input=question.input,
        asked_at=question.asked_at,
        agent=question.agent,
        answer=verdict,
        answered_by=by,
        answered_at=at,
    )


def same_input(one: object, other: object) -> bool:
    """Whether two inputs are the same JSON: 1 is neither 1.0 nor true."""
    encode = msgspec.json.Encoder(order="deterministic").encode
    return encode(one) == encode(other)
