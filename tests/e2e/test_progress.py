"""What a client, a shell and the record are told while the real CLI works."""

import re

import pytest
import trio

from tests.e2e.messages_api import MessagesApi, answer, bash, script
from tests.e2e.world import World

pytestmark = pytest.mark.e2e

COMMAND = "sleep 5; echo counted the pods"


async def test_progress_says_who_does_what_in_the_same_words_everywhere(
    world: World, api: MessagesApi
) -> None:
    await world.add_agent("infra", "--allowed-tools", "Bash")
    api.decide = script(("counted the pods", answer("four pods")), ("count pods", bash(COMMAND)))
    with trio.fail_after(120):
        async with world.serving() as client:
            outcome = await client.call("dispatch", agent="infra", task="count pods")
            told = list(client.progress)
            job = await client.call("dispatch_status", job_id=outcome["job_id"])
        streamed = await world.product("run", "infra", "count pods", "--stream")
        tail = await world.product("tail", outcome["job_id"][-8:])
    assert outcome["result"] == "four pods"
    assert told[0] == f"infra · started · job {outcome['job_id'][-8:]}"
    call = re.compile(rf"infra · Bash: {re.escape(COMMAND)}( · \d+ s)?")
    for lines in (told, job["progress"], streamed.stderr.splitlines(), tail.stdout.splitlines()):
        assert [line for line in lines if call.fullmatch(line)], lines
        # A command in the foreground is no background task.
        assert not [line for line in lines if "ackground" in line], lines
        assert "infra · four pods" in lines
    last = tail.stdout.splitlines()[-1]
    assert re.fullmatch(r"infra · done · \d+ s( · \$\d+\.\d+)?", last)
