"""The front door and the library answer alike, wherever in a session the one hands over.

A line that the door cannot decode is left to the library, with all that follows. Put at each place
of a conversation, it moves the border between the two; no answer may change.
"""

from pathlib import Path

import pytest

from tests.server.processes import (
    INITIALIZE,
    INITIALIZED,
    MODERN_META,
    PRODUCT,
    Message,
    serving,
)

HAND_OVER = b"[]\n"
"""A batch of nothing: no era has it, and the door leaves it to the library."""


def request(number: int, method: str, **params: object) -> Message:
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params}


LISTS = ("tools/list", "resources/list", "resources/templates/list")
LEGACY: list[Message] = [
    INITIALIZE,
    INITIALIZED,
    {"jsonrpc": "2.0", "id": 1, "method": "ping"},
    *(request(number, method) for number, method in enumerate(LISTS, start=2)),
    request(5, "prompts/list"),
    request(6, "tools/call", name="list_agents", arguments={}),
    request(7, "tools/call", name="no_such_tool", arguments={}),
    request(8, "server/discover", _meta=MODERN_META),
]
MODERN: list[Message] = [
    request(number, method, _meta=MODERN_META)
    for number, method in enumerate(("server/discover", *LISTS, "prompts/list", "ping"), start=1)
]
MODERN += [
    request(7, "tools/call", name="list_agents", arguments={}, _meta=MODERN_META),
    request(8, "server/discover", _meta={**MODERN_META, "io.modelcontextprotocol/x": 1}),
]


async def answers(messages: list[Message], place: int, config: Path) -> dict[object, Message]:
    """All answers of a conversation, handed over before the message at `place`."""
    wanted = {message["id"] for message in messages if "id" in message}
    found: dict[object, Message] = {}
    env = {"AGENT_DISPATCH_CONFIG": str(config)}
    async with serving("serve", module=PRODUCT, env=env) as server:
        for number, message in enumerate(messages):
            if number == place:
                await server.say_raw(HAND_OVER)
            await server.say(message)
            # One after the other: what is asked together may be answered in any order.
            while message.get("id") in wanted - found.keys():
                answer = await server.hear()
                if answer.get("id") is not None:
                    found[answer["id"]] = answer
    return found


@pytest.mark.parametrize("messages", [LEGACY, MODERN], ids=["legacy", "modern"])
async def test_no_answer_depends_on_where_the_door_hands_over(
    tmp_path: Path, messages: list[Message]
) -> None:
    config = tmp_path / "agents.toml"
    expected = await answers(messages, len(messages), config)
    assert expected.keys() == {message["id"] for message in messages if "id" in message}
    for place in range(1 if messages is LEGACY else 0, len(messages)):
        assert await answers(messages, place, config) == expected, place
