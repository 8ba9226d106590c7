"""What travels through a dialogue: what is asked of the two agents, and what they said."""

from enum import StrEnum

import msgspec

from agent_dispatch.model.dispatch import DeniedCall, ErrorType, Evidence
from agent_dispatch.model.next_step import NextStep

DEFAULT_ROUNDS = 3
MAX_ROUNDS = 10


class Role(StrEnum):
    """The part that an agent has in a dialogue."""

    RESPONDER = "responder"
    """Has the expertise and the tools; speaks first."""
    REQUESTER = "requester"
    """Has the problem and knows what it is about."""


class DialogueRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One topic for two agents; checked by `core.dialogue.exchange.check_dialogue`."""

    requester: str
    responder: str
    topic: str
    max_rounds: int = DEFAULT_ROUNDS
    """Clamped to 1 to 10; in a round each of the two speaks once."""
    timeout_s: float | None = None
    """Seconds for all of it, counted from when its slot is had; None: as long as the turns take,
    each of which has its agent's own timeout."""


class DialogueTurn(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one agent said when it was its turn."""

    agent: str
    role: Role
    round: int
    message: str
    cost_usd: float | None = None
    """US dollars of this turn; None when it is not known."""
    duration_ms: int | None = None
    num_turns: int | None = None
    """Requests to the model."""
    denied_tools: list[str] | None = None
    denied_calls: list[DeniedCall] | None = None
    evidence: Evidence | None = None
    earlier_results: list[str] | None = None
    """Non-empty answers of this turn before the last one, oldest first."""
    error_type: ErrorType | None = None
    """Set for the turn that ended the dialogue by failing."""
    truncated: bool | None = None
    full_size: int | None = None
    """Characters of the whole message, where it is truncated."""


class DialogueResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the caller of a dialogue gets; the order of the fields is the order on the wire."""

    resolved: bool
    """One of the two said, at the end of a message, that the topic is settled."""
    rounds: int
    """How many it came to: the number of the last one in which an agent said something."""
    total_cost_usd: float | None = None
    """US dollars of all turns whose cost is known."""
    total_duration_ms: int
    """Wall time, queueing not counted."""
    final_answer: str
    conversation: list[DialogueTurn]
    sessions: dict[str, str] | None = None
    """By agent, the conversation to resume."""
    job_id: str | None = None
    error: str | None = None
    error_type: ErrorType | None = None
    hint: str | None = None
    left_running: int | None = None
    """Processes that the agents left behind and that were ended with them."""
    truncated: bool | None = None
    next_steps: list[NextStep] | None = None
    """As in a `DispatchResult`."""
