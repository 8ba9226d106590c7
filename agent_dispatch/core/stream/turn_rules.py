"""Decides what a turn waits for, from what claude has printed so far."""

import math
from collections.abc import Mapping
from enum import Enum, auto

from agent_dispatch.core.stream.transcript import Transcript


class Wait(Enum):
    """What a turn waits for."""

    ANSWER = auto()
    """The agent is working on the user line."""
    WORK = auto()
    """It has answered; background tasks or the turns that follow them still run."""
    READING = auto()
    """It has answered; a message was written to it and not yet reported as read."""
    MORE = auto()
    """Nothing runs. The CLI may begin another turn by itself, or exit."""
    LAST_WORDS = auto()
    """It has exited without an answer; its last output may still be in the pipe."""
    NOTHING = auto()
    """The turn has ended."""
    REFUSED = auto()
    """The API refused the credentials; the CLI would retry for minutes."""


PATIENCE_S: Mapping[Wait, float] = {
    Wait.ANSWER: math.inf,
    Wait.WORK: math.inf,
    Wait.READING: 5.0,
    Wait.MORE: 2.0,
    Wait.LAST_WORDS: 0.25,
}
"""How long to wait for each; then the turn ends."""


def next_wait(
    transcript: Transcript,
    *,
    exited: bool,
    is_last: bool,
    has_message: bool = False,
    message_unread: bool = False,
) -> Wait:
    """Return what the turn waits for.

    Args:
        transcript: What the process has printed.
        exited: The process has ended.
        is_last: The process gets no other turn, so it exits when this turn ends.
        has_message: It has read a message and is not done with it.
        message_unread: A message was written to it and not yet read. Some versions of the CLI
            never report that they have read one.
    """
    # An answer that arrived outranks the outcome of later turns.
    if transcript.credentials_refused and not (transcript.answered and is_last):
        return Wait.REFUSED
    if exited:
        # After a last turn, the rest of the output is read when the process is closed.
        return Wait.NOTHING if transcript.answered or is_last else Wait.LAST_WORDS
    if not transcript.answered:
        return Wait.ANSWER
    if has_message or not transcript.idle:
        return Wait.WORK
    if message_unread:
        return Wait.READING
    return Wait.MORE if is_last or transcript.had_tasks else Wait.NOTHING
