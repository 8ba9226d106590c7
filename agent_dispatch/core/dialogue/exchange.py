"""A dialogue of two agents: whose turn it is, when it ends, and its result.

In each round the responder speaks first, then the requester. `[RESOLVED]` ends the dialogue only
as the last word of a message (see `closing`).
"""

from collections.abc import Sequence

import msgspec

from agent_dispatch.core.dialogue.closing import is_courtesy, without_marker
from agent_dispatch.core.dialogue.prompt import MAX_QUOTED_CHARS, build_turn_prompt
from agent_dispatch.core.request.checks import MAX_PROMPT_BYTES, check_text
from agent_dispatch.core.request.timeout import check_timeout
from agent_dispatch.core.text import is_blank
from agent_dispatch.errors import InvalidRequestError
from agent_dispatch.model.dialogue import (
    MAX_ROUNDS,
    DialogueRequest,
    DialogueResult,
    DialogueTurn,
    Role,
)
from agent_dispatch.model.dispatch import COST_DECIMALS, DispatchResult, ErrorType
from agent_dispatch.model.next_step import NextStep, StepKind


def check_dialogue(request: DialogueRequest) -> DialogueRequest:
    """Check a request, as far as that is possible without its agents.

    Returns:
        The request with `max_rounds` clamped to its range.

    Raises:
        InvalidRequestError: Something in the request cannot be sent.
    """
    for name in ("requester", "responder", "topic"):
        check_text(name, getattr(request, name))
    if is_blank(request.topic):
        raise InvalidRequestError("topic is empty: say what the two agents should discuss.")
    if request.requester == request.responder:
        raise InvalidRequestError(
            f"requester and responder are both {request.requester!r}: a dialogue takes two agents.",
            NextStep(kind=StepKind.ASK, agent=request.requester),
        )
    check_timeout(request.timeout_s)
    if (size := len(request.topic.encode())) > MAX_PROMPT_BYTES - MAX_QUOTED_CHARS * 4:
        raise InvalidRequestError(
            f"The topic has {size:,} bytes, too many for a prompt. Put the material into a file in"
            " the directory of the agent that needs it, and name the file in the topic."
        )
    return msgspec.structs.replace(request, max_rounds=min(max(request.max_rounds, 1), MAX_ROUNDS))


class PlannedTurn(msgspec.Struct, frozen=True, kw_only=True):
    """The next turn: which agent, and its prompt."""

    agent: str
    role: Role
    round: int
    prompt: str


class Exchange:
    """A dialogue in progress."""

    def __init__(self, request: DialogueRequest) -> None:
        """Begin an empty dialogue; `request` comes from `check_dialogue`."""
        self._request = request
        self._turns: list[DialogueTurn] = []
        self._hints: dict[str, None] = {}
        self._sessions: dict[str, str] = {}
        self._error: str | None = None
        self._error_type: ErrorType | None = None
        self._next_steps: list[NextStep] = []

    def next_turn(self) -> PlannedTurn | None:
        """Return the next turn; None if the dialogue has ended."""
        index = len(self._turns)
        number = index // 2 + 1
        if self._error or self._resolution() is not None or number > self._request.max_rounds:
            return None
        role = Role.REQUESTER if index % 2 else Role.RESPONDER
        return PlannedTurn(
            agent=self._name(role),
            role=role,
            round=number,
            prompt=build_turn_prompt(self._request, role, number, self._turns),
        )

    def add(self, turn: PlannedTurn, result: DispatchResult) -> None:
        """Add the result of a turn that succeeded."""
        self._turns.append(_as_turn(turn, result))
        self._collect(turn, result)

    def fail(self, turn: PlannedTurn, result: DispatchResult) -> None:
        """Add the result of a turn that failed; it ends the dialogue."""
        if result.result or result.cost_usd:
            self._turns.append(_as_turn(turn, result))
        self._collect(turn, result)
        where = f"Round {turn.round}, agent {turn.agent!r} ({turn.role})"
        self.stop(f"{where}: {result.error}", result.error_type or ErrorType.CLI_ERROR)

    def stop(self, error: str, error_type: ErrorType, next_steps: Sequence[NextStep] = ()) -> None:
        """End the dialogue early; the messages so far stay."""
        self._error, self._error_type = error, error_type
        self._next_steps += next_steps

    def result(self, duration_ms: int, left_running: int = 0) -> DialogueResult:
        """Return the result.

        Args:
            left_running: Processes that the agents left behind; they were ended.
        """
        answer = self._resolution()
        resolved = answer is not None
        costs = [turn.cost_usd for turn in self._turns if turn.cost_usd is not None]
        hints = [*self._hints]
        steps = self._next_steps
        if not resolved and (not self._error or self._error_type is ErrorType.TIMEOUT):
            # Any other error comes with its own steps.
            steps = [*steps, *self._ask_further()]
            if not self._error:
                hints.insert(0, f"Not resolved within {self._request.max_rounds} round(s).")
        if left_running:
            hints.append(f"{left_running} process(es) that they left running were ended with them.")
        if 0 < len(costs) < len(self._turns):
            hints.append(f"The cost of {len(self._turns) - len(costs)} turn(s) is not known.")
        return DialogueResult(
            resolved=resolved,
            rounds=max((turn.round for turn in self._turns), default=0),
            total_cost_usd=round(sum(costs), COST_DECIMALS) if costs else None,
            total_duration_ms=duration_ms,
            final_answer=self._last_words(Role.RESPONDER) if answer is None else answer,
            conversation=list(self._turns),
            sessions=dict(self._sessions) or None,
            error=self._error,
            error_type=self._error_type,
            hint=" ".join(hints) or None,
            left_running=left_running or None,
            next_steps=steps or None,
        )

    def _resolution(self) -> str | None:
        """Return the final answer, if the last message resolves the topic."""
        last = self._turns[-1] if self._turns else None
        if last is None or last.error_type is not None:
            return None
        answer = without_marker(last.message)
        if answer is None or self._is_substantial(answer):
            return answer
        earlier = (turn.message for turn in reversed(self._turns[:-1]))
        return next(filter(self._is_substantial, earlier), answer)

    def _is_substantial(self, message: str) -> bool:
        names = (self._request.requester, self._request.responder)
        return not is_blank(message) and not is_courtesy(message, names)

    def _last_words(self, role: Role) -> str:
        spoken = (turn.message for turn in reversed(self._turns) if turn.role is role)
        return next((message for message in spoken if not is_blank(message)), "")

    def _collect(self, turn: PlannedTurn, result: DispatchResult) -> None:
        if result.session_id is not None:
            self._sessions[turn.agent] = result.session_id
        if result.hint:
            self._hints.setdefault(f"{turn.agent}: {result.hint}")
        self._next_steps += result.next_steps or ()

    def _name(self, role: Role) -> str:
        return self._request.responder if role is Role.RESPONDER else self._request.requester

    def _ask_further(self) -> list[NextStep]:
        return [
            NextStep(kind=StepKind.ASK, agent=agent, session_id=session_id)
            for agent, session_id in self._sessions.items()
        ]


def _as_turn(turn: PlannedTurn, result: DispatchResult) -> DialogueTurn:
    return DialogueTurn(
        agent=turn.agent,
        role=turn.role,
        round=turn.round,
        message=result.result,
        cost_usd=result.cost_usd,
        duration_ms=result.duration_ms,
        num_turns=result.num_turns,
        denied_tools=result.denied_tools,
        denied_calls=result.denied_calls,
        evidence=result.evidence,
        earlier_results=result.earlier_results,
        error_type=result.error_type,
    )


def timeout_error(timeout_s: float) -> str:
    """Return the error of a dialogue whose time was up."""
    return f"The time for the whole dialogue was up ({timeout_s:g} s)."


def refused_dialogue(request: DialogueRequest, result: DispatchResult) -> DialogueResult:
    """Return the result of a dialogue that was not started, for the reason in `result`."""
    exchange = Exchange(request)
    error_type = result.error_type or ErrorType.CLI_ERROR
    exchange.stop(result.error or "", error_type, result.next_steps or ())
    return exchange.result(duration_ms=0)
