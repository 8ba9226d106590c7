"""What other processes tell an agent while it works, and what became of it."""

from enum import StrEnum

import msgspec

from agent_dispatch.model.next_step import NextStep

MESSAGE_MAIL = "message"
"""The kind of mail that carries a `MessageBody`."""
KEEP_MAIL = "keep"
"""The kind of mail that carries a `Keep`."""


class MessageBody(msgspec.Struct, frozen=True):
    """One message to the agent of a job."""

    text: str


class Keep(msgspec.Struct, frozen=True):
    """The wish that the agent stops now, and that what it said is kept."""

    by: str
    """Who wishes it, for the end of a sentence."""


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One message as the job's record shows it; times are seconds since the epoch."""

    id: str
    text: str
    sent_at: float
    delivered_at: float | None = None
    """When the agent's turn took it in; None: not yet."""


class SendOutcome(StrEnum):
    """What sending a message came to."""

    DELIVERED = "delivered"
    """The agent's turn has taken it in."""
    QUEUED = "queued"
    """It is delivered when the agent's process takes it."""
    ALREADY_TERMINAL = "already_terminal"
    """The job ended without taking it in."""
    NOT_FOUND = "not_found"


class Sending(msgspec.Struct, frozen=True, kw_only=True):
    """What sending a message came to, and what can be done instead."""

    job_id: str
    outcome: SendOutcome
    next_step: NextStep | None = None
    """For a job that has ended: say it in the job's session."""
