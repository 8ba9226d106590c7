"""What to wait for next in a turn, decided from what the agent's claude has printed so far."""

import math
from collections.abc import Mapping
from enum import Enum, auto

from agent_dispatch.core.stream.transcript import Transcript


class Wait(Enum):
    """What a turn waits for."""

    ANSWER = auto()
    """The agent is at work on what it was asked."""
    WORK = auto()
    """It has answered; background tasks, and the turns that follow on them, still run."""
    READING = auto()
    """It has answered; a message was written to it, and it has not said that it read it."""
    MORE = auto()
    """Nothing runs. The CLI may begin another turn by itself, or leave."""
    LAST_WORDS = auto()
    """It has exited without an answer; what it printed last may still be on its way."""
    NOTHING = auto()
    """The turn has ended."""
    REFUSED = auto()
    """The API refused the credentials; the CLI would go on trying for minutes."""


PATIENCE_S: Mapping[Wait, float] = {
    Wait.ANSWER: math.inf,
    Wait.WORK: math.inf,
    Wait.READING: 5.0,
    Wait.MORE: 2.0,
    Wait.LAST_WORDS: 0.25,
}
"""How long to wait for each; the turn ends when that time has passed."""


def next_wait(
    seen: Transcript,
    *,
    exited: bool,
    is_last: bool,
    has_message: bool = False,
    message_unread: bool = False,
) -> Wait:
    """Say what the turn waits for.

    Args:
        seen: What the process has printed.
        exited: The process has ended.
        is_last: No other turn is put to this process, so it exits when this turn ends.
        has_message: It has read a message that it still has to see to.
        message_unread: A message was written to it. Versions of the CLI that do not tell of such
            lines never say that they have read it.
    """
    # An answer that arrived outranks the outcome of later turns.
    if seen.credentials_refused and not (seen.answered and is_last):
        return Wait.REFUSED
    if exited:
        # Of a last turn, the rest of the output is read when its process is closed.
        return Wait.NOTHING if seen.answered or is_last else Wait.LAST_WORDS
    if not seen.answered:
        return Wait.ANSWER
    if has_message or not seen.idle:
        return Wait.WORK
    if message_unread:
        return Wait.READING
    return Wait.MORE if is_last or seen.had_tasks else Wait.NOTHING
