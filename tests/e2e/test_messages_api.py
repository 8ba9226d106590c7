"""The ground the other tests stand on: the bare CLI, the stand-in for its API, the probes."""

import json
import signal

import pytest
import trio

from tests.e2e.messages_api import ApiError, MessagesApi, answer, bash, script
from tests.e2e.world import Witness, World

pytestmark = pytest.mark.e2e

_STREAMS = ("-p", "--input-format=stream-json", "--output-format=stream-json", "--verbose")


def _prompt(text: str) -> str:
    return json.dumps({"type": "user", "message": {"role": "user", "content": text}}) + "\n"


async def test_the_cli_talks_to_the_stand_in_and_to_nothing_else(
    world: World, api: MessagesApi
) -> None:
    api.decide = script(("which ships", answer("three ships")))
    with trio.fail_after(30):
        done = await world.claude(*_STREAMS, stdin=_prompt("which ships are in?"))
    assert done.result()["result"] == "three ships"
    assert ["which ships are in?" in request.newest for request in api.requests] == [True]
    await world.nothing_left(within_s=3)


async def test_the_cli_reports_an_error_of_the_api(world: World, api: MessagesApi) -> None:
    api.decide = script(otherwise=ApiError(status=500))
    world.environ["CLAUDE_CODE_MAX_RETRIES"] = "0"
    with trio.fail_after(30):
        done = await world.claude(*_STREAMS, stdin=_prompt("hello"))
    assert done.result()["api_error_status"] == 500


async def test_a_witness_sees_its_command_begin_and_end(
    world: World, api: MessagesApi, witness: Witness
) -> None:
    api.decide = script(("wait here", bash(witness.command)))
    with trio.fail_after(30):
        async with world.started(
            "claude", *_STREAMS, "--permission-mode=bypassPermissions"
        ) as claude:
            assert claude.stdin is not None
            await claude.stdin.send_all(_prompt("wait here").encode())
            await witness.begun()
            assert len(world.alive()) >= 2
            claude.send_signal(signal.SIGTERM)
            await witness.ended()
    await world.nothing_left(within_s=3)
