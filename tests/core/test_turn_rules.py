"""What a turn waits for, by what has happened in it."""

import pytest

from agent_dispatch.core.stream.events import Event
from agent_dispatch.core.stream.transcript import Transcript
from agent_dispatch.core.stream.turn_rules import Wait, next_wait
from tests.run.fake_claude import AUTH_RETRY, INIT, answer, tasks

DONE = answer("done")
CASES: list[tuple[list[Event], bool, Wait, Wait]] = [
    # What it printed, whether it has exited; what a turn waits for, and what the last one does.
    ([], False, Wait.ANSWER, Wait.ANSWER),
    ([INIT], False, Wait.ANSWER, Wait.ANSWER),
    ([INIT, DONE], False, Wait.NOTHING, Wait.MORE),
    ([INIT, tasks(1), DONE], False, Wait.WORK, Wait.WORK),
    ([INIT, tasks(1), DONE, tasks(0)], False, Wait.MORE, Wait.MORE),
    ([INIT, DONE, INIT], False, Wait.WORK, Wait.WORK),
    ([INIT, AUTH_RETRY], False, Wait.ANSWER, Wait.ANSWER),
    ([INIT, AUTH_RETRY, AUTH_RETRY], False, Wait.REFUSED, Wait.REFUSED),
    ([INIT, DONE, INIT, AUTH_RETRY, AUTH_RETRY], False, Wait.REFUSED, Wait.WORK),
    ([INIT], True, Wait.LAST_WORDS, Wait.NOTHING),
    ([INIT, DONE], True, Wait.NOTHING, Wait.NOTHING),
    ([INIT, tasks(1), DONE], True, Wait.NOTHING, Wait.NOTHING),
]


@pytest.mark.parametrize(("events", "exited", "turn", "last"), CASES)
def test_what_a_turn_waits_for(events: list[Event], exited: bool, turn: Wait, last: Wait) -> None:
    seen = Transcript()
    for event in events:
        seen.add(event)
    assert next_wait(seen, exited=exited, is_last=False) is turn
    assert next_wait(seen, exited=exited, is_last=True) is last
