"""What one agent says does not pull files of another's project into the other's prompt."""

import pytest
import trio

from agent_dispatch.core.request.quoting import quote
from tests.e2e.messages_api import MessagesApi
from tests.e2e.world import World

pytestmark = pytest.mark.e2e

FORMS = (
    "@{name}",
    "see @{name}, please",
    "a\n@{name}\nb",
    "> @./{name}",
    "```\n@{directory}/{name}\n```",
    "see @../infra/{name}",
    'see @"{name}"',
    "\ufeff@{name}",
    "done\u3002@{name}",
)


async def test_a_quoted_mention_inlines_nothing_where_the_bare_one_does(
    world: World, api: MessagesApi
) -> None:
    directory = await world.add_agent("infra")
    texts = []
    for number, form in enumerate(FORMS):
        name = f"notes{number}.txt"
        (directory / name).write_text(f"content number {number}\n")
        texts.append(form.format(name=name, directory=directory))
    with trio.fail_after(60):
        async with world.serving() as client:
            bare = await client.call("dispatch", agent="infra", task="\n".join(texts))
            quotes = "\n".join(quote("Answer", text) for text in texts)
            quoted = await client.call("dispatch", agent="infra", task=quotes)
    assert (bare["success"], quoted["success"]) == (True, True), (bare, quoted)
    contents = [f"content number {number}" for number in range(len(FORMS))]
    assert [text for text in contents if text not in str(api.requests[0].body)] == []
    assert [text for text in contents if text in str(api.requests[1].body)] == []


async def test_a_quoted_mention_of_a_subagent_calls_for_none(
    world: World, api: MessagesApi
) -> None:
    await world.add_agent("infra")
    text = "@agent-general-purpose is who I asked."
    with trio.fail_after(60):
        async with world.serving() as client:
            await client.call("dispatch", agent="infra", task=text)
            await client.call("dispatch", agent="infra", task=quote("Answer", text))
    asked, quoted = (str(request.body["messages"]) for request in api.requests)
    assert "desire to invoke the agent" in asked
    assert "desire to invoke the agent" not in quoted
