"""What the server still sends after the end of stdin: answers that are due, and nothing else."""

import json
from typing import Any

import pytest
import trio

from tests.server.processes import LEAVE_S, Message, Server, serving

both_eras = pytest.mark.parametrize("modern", [False, True], ids=["legacy", "modern"])


async def said_after_the_end(server: Server) -> list[Message]:
    """Close stdin, and collect what the server says from then on."""
    assert server.process.stdin is not None
    assert server.process.stdout is not None
    await server.process.stdin.aclose()
    data = bytearray()
    async for chunk in server.process.stdout:
        data += chunk
    return [json.loads(line) for line in data.splitlines()]


def with_progress(server: Server, request_id: object, task: str) -> Message:
    meta: dict[str, Any] = {"progressToken": str(request_id)}
    return server.dispatch(request_id, task, _meta=meta)


async def begin(server: Server, *calls: Message) -> None:
    """Start calls, and read all that the server has said so far."""
    await server.say(*calls, server.request("last", "tools/list"))
    await server.hear_answer("last")


@both_eras
@pytest.mark.parametrize("task", ["forever", "stubborn"])
async def test_an_unfinished_call_is_not_answered(modern: bool, task: str) -> None:
    async with serving() as server:
        await server.shake_hands(modern=modern)
        await begin(server, server.dispatch(1, task))
        started = trio.current_time()
        assert await said_after_the_end(server) == []
        assert (await server.wait_exit())[0] == 0
        assert trio.current_time() - started < LEAVE_S


@both_eras
async def test_a_call_that_ends_in_time_is_answered_and_the_others_are_not(modern: bool) -> None:
    async with serving() as server:
        await server.shake_hands(modern=modern)
        await begin(
            server,
            server.dispatch("quick", "sleep 0.1"),
            server.dispatch("slow", "sleep 5"),
            server.dispatch("run", "forever"),
        )
        heard = await said_after_the_end(server)
        assert [(message["id"], "result" in message) for message in heard] == [("quick", True)]


@both_eras
async def test_no_progress_goes_out(modern: bool) -> None:
    async with serving() as server:
        await server.shake_hands(modern=modern)
        await server.say(with_progress(server, 1, "chatter"))
        assert (await server.hear())["method"] == "notifications/progress"
        await server.say(
            server.dispatch("quick", "sleep 0.2"), server.request("last", "tools/list")
        )
        await server.hear_answer("last")
        heard = await said_after_the_end(server)
        # One may have been written just before the end.
        assert [message.get("id") for message in heard if "id" in message] == ["quick"]
        assert len([message for message in heard if "method" in message]) <= 1
        assert "id" in heard[-1]


@both_eras
async def test_without_a_call_under_way_it_leaves_at_once(modern: bool) -> None:
    async with serving() as server:
        await server.shake_hands(modern=modern)
        started = trio.current_time()
        assert await said_after_the_end(server) == []
        assert (await server.wait_exit())[0] == 0
        assert trio.current_time() - started < 0.25
