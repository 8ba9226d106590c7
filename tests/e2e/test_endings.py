"""However a dispatch ends, no process of it lives on."""

import json
import signal

import pytest
import trio

from tests.e2e.messages_api import Hang, MessagesApi, answer, bash, script
from tests.e2e.world import Witness, World

pytestmark = pytest.mark.e2e


async def test_a_deadline_ends_the_shell_command_and_leaves_a_session_to_resume(
    world: World, api: MessagesApi, witness: Witness
) -> None:
    bypass = ("--permission-mode", "bypassPermissions")
    await world.add_agent("infra", "--timeout", "8", *bypass)
    api.decide = script(
        ("carry on", answer("carried on")), ("take your time", bash(witness.command))
    )
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(witness.begun)
            done = await world.product("run", "infra", "take your time", "--json")
        await witness.ended()
        await world.nothing_left(within_s=3)
        late = done.json()
        assert done.exit_code == 124
        assert late["error_type"] == "timeout"
        assert late["session_id"] in late["error"]

        resumed = await world.dispatch_each(
            {"agent": "infra", "task": "carry on", "session_id": late["session_id"]},
            {"agent": "infra", "task": "carry on again", "session_id": late["session_id"]},
        )
    assert [result["result"] for result in resumed] == ["carried on", "carried on"]
    assert {result["session_id"] for result in resumed} == {late["session_id"]}
    # Each run had one turn of the same size; the CLI's own total is the session's so far.
    costs = [result["cost_usd"] for result in resumed]
    assert costs[0] > 0
    assert costs[1] == pytest.approx(costs[0])


async def test_an_api_that_never_answers_ends_at_the_deadline(
    world: World, api: MessagesApi
) -> None:
    await world.add_agent("infra", "--timeout", "4")
    api.decide = script(otherwise=Hang())
    with trio.fail_after(40):
        done = await world.product("run", "infra", "list the pods", "--json")
    late = done.json()
    assert done.exit_code == 124
    assert late["error_type"] == "timeout"
    assert 4000 <= late["duration_ms"] < 9000
    await world.nothing_left(within_s=3)


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
async def test_nothing_of_a_dispatch_outlives_the_server(
    world: World, api: MessagesApi, witness: Witness, signum: signal.Signals
) -> None:
    await world.add_agent("infra", "--permission-mode", "bypassPermissions")
    api.decide = script(("take your time", bash(witness.command)))
    arguments = {"agent": "infra", "task": "take your time"}
    with trio.fail_after(40):
        async with world.serving() as client:
            await client.post("tools/call", {"name": "dispatch", "arguments": arguments})
            await witness.begun()
            client.process.send_signal(signum)
            with trio.fail_after(3):
                await witness.ended()
            await world.nothing_left(within_s=3)


async def test_nothing_of_a_dispatch_outlives_an_interrupted_caller(
    world: World, api: MessagesApi, witness: Witness
) -> None:
    await world.add_agent("infra", "--permission-mode", "bypassPermissions")
    api.decide = script(("take your time", bash(witness.command)))
    with trio.fail_after(40):
        async with world.started(
            *world.product_command("run", "infra", "take your time", "--json")
        ) as shell:
            await witness.begun()
            shell.send_signal(signal.SIGINT)
            with trio.fail_after(3):
                await witness.ended()
            assert await shell.wait() == 130
            await world.nothing_left(within_s=3)
            assert shell.stdout is not None
            result = json.loads(b"".join([chunk async for chunk in shell.stdout]))
    assert result["error_type"] == "cancelled"
