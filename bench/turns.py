"""m8: the second turn of a conversation with the real CLI, in a dialogue and by resuming."""

from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from statistics import median
from typing import Any

from bench.command import say
from bench.fanout import task
from bench.harness import Server, timed
from bench.real import RealWorld
from bench.report import Row, Samples, medians, of_floor, row
from bench.steering import serving

DIALOGUE, SESSION = "dispatch_dialogue", "dispatch_session"
FASTER = 5
"""How many times faster a turn of a dialogue is to be than starting and resuming for it."""
_SHORT, _LONG = 1, 4
"""Rounds of two dialogues; what the longer one takes more is that of its further turns."""


def second_turns(world: RealWorld, rounds: int) -> list[Row]:
    """Both of them in turn, on all products."""
    resumed: Samples = defaultdict(list)
    talked: Samples = defaultdict(list)
    with ExitStack() as stack:
        servers = {p.name: serving(stack, p, place=world.place) for p in world.products}
        for number in range(rounds):
            for name, server in servers.items():
                resumed[name].append(_resumed_turn_s(server, number))
                if DIALOGUE in server.tools:
                    talked[name].append(_dialogue_turn_s(server, number))
                else:
                    say(f"no dialogue: {name} has no tool {DIALOGUE}")
    return _rows(resumed, talked)


def _rows(resumed: Samples, talked: Samples) -> list[Row]:
    rows = [row("m8", "second turn by start and resume", "s", medians(resumed))]
    if "agent-dispatch" in talked:
        target = of_floor(1 / FASTER)
        floor = median(resumed["agent-dispatch"])
        figures = medians(talked)
        name = "further turn of a dialogue"
        rows.append(row("m8", name, "s", figures, target, floor=floor, floor_is="start and resume"))
    return rows


def _resumed_turn_s(server: Server, number: int) -> float:
    first = _succeeded(server.call(SESSION, task(number)))
    second = {**task(number), "session_id": first["session_id"]}
    return timed(lambda: _succeeded(server.call(SESSION, second)))


def _dialogue_turn_s(server: Server, number: int) -> float:
    short_s, short = _dialogue(server, f"topic {number}", _SHORT)
    long_s, long = _dialogue(server, f"other topic {number}", _LONG)
    return (long_s - short_s) / (long - short)


def _dialogue(server: Server, topic: str, rounds: int) -> tuple[float, int]:
    """Hold one; the seconds that it took, and how many turns there were."""
    arguments = {"requester": "agent0", "responder": "agent1", "topic": topic}
    answers: list[Any] = []
    took_s = timed(
        lambda: answers.append(server.call(DIALOGUE, {**arguments, "max_rounds": rounds}))
    )
    conversation: Sequence[object] = answers[0]["conversation"]
    return took_s, len(conversation)


def _succeeded(answer: Any) -> Any:
    if not answer["success"]:
        raise RuntimeError(f"the dispatch failed: {answer}")
    return answer
