"""Messages of other processes to an agent at work."""

from enum import StrEnum

import msgspec

from agent_dispatch.model.next_step import NextStep

MESSAGE_MAIL = "message"
"""The kind of mail with a `MessageBody`."""
KEEP_MAIL = "keep"
"""The kind of mail with a `Keep`."""


class MessageBody(msgspec.Struct, frozen=True):
    """One message to the agent of a job."""

    text: str


class Keep(msgspec.Struct, frozen=True):
    """The request to stop the agent now and keep what it said."""

    by: str
    """Who requests it, for the end of a sentence."""


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One message in the record of a job; times are seconds since the epoch."""

    id: str
    text: str
    sent_at: float
    delivered_at: float | None = None
    """When the agent's turn read it; None: not yet."""


class SendOutcome(StrEnum):
    """The outcome of sending a message."""

    DELIVERED = "delivered"
    """The agent's turn has read it."""
    QUEUED = "queued"
    """It is delivered when the agent's process reads it."""
    ALREADY_TERMINAL = "already_terminal"
    """The job ended without reading it."""
    NOT_FOUND = "not_found"


class Sending(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of sending a message, and what to do instead."""

    job_id: str
    outcome: SendOutcome
    next_step: NextStep | None = None
    """For a job that has ended: send it in the job's session."""
