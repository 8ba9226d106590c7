"""A dialogue: its request, its turns, and its result."""

from enum import StrEnum

import msgspec

from agent_dispatch.model.dispatch import DeniedCall, ErrorType, Evidence
from agent_dispatch.model.next_step import NextStep

DEFAULT_ROUNDS = 3
MAX_ROUNDS = 10


class Role(StrEnum):
    """The role of an agent in a dialogue."""

    RESPONDER = "responder"
    """Has the expertise and the tools; speaks first."""
    REQUESTER = "requester"
    """Has the problem and knows what it is about."""


class DialogueRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One topic for two agents; `core.dialogue.exchange` checks it before anything starts."""

    requester: str
    responder: str
    topic: str
    max_rounds: int = DEFAULT_ROUNDS
    """Clamped to 1 to 10; in a round each agent speaks once."""
    timeout_s: float | None = None
    """Seconds for the whole dialogue, from the moment it has its slot; None: only the timeouts of
    the agents limit it."""


class DialogueTurn(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One turn of one agent."""

    agent: str
    role: Role
    round: int
    message: str
    cost_usd: float | None = None
    """US dollars of this turn; None if not known."""
    duration_ms: int | None = None
    num_turns: int | None = None
    """Requests to the model."""
    denied_tools: list[str] | None = None
    denied_calls: list[DeniedCall] | None = None
    evidence: Evidence | None = None
    earlier_results: list[str] | None = None
    """Earlier non-empty answers of this turn, oldest first."""
    error_type: ErrorType | None = None
    """Set for the turn whose failure ended the dialogue."""
    truncated: bool | None = None
    full_size: int | None = None
    """Characters of the whole message, if it is truncated."""


class DialogueResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The result of a dialogue; the order of the fields is the order on the wire."""

    resolved: bool
    """The last message said that the topic is settled."""
    rounds: int
    """The number of the last round in which an agent said something."""
    total_cost_usd: float | None = None
    """US dollars of the turns whose cost is known."""
    total_duration_ms: int
    """Wall time, queueing not counted."""
    final_answer: str
    conversation: list[DialogueTurn]
    sessions: dict[str, str] | None = None
    """The session of each agent."""
    job_id: str | None = None
    error: str | None = None
    error_type: ErrorType | None = None
    hint: str | None = None
    left_running: int | None = None
    """Processes that the agents left behind; they were ended with the dialogue."""
    truncated: bool | None = None
    next_steps: list[NextStep] | None = None
    """As in a `DispatchResult`."""
