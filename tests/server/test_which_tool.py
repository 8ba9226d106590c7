"""What a careful reader of the tools' descriptions picks for twelve wishes, and by which words."""

import json

import pytest

from agent_dispatch.server.tools.catalogue import TOOLS
from tests.server.test_tools_jobs import error_of

SCENARIOS = [
    # What is wanted, the tool, the words that say so in its entry, and why they are needed.
    ("several agents at once", "dispatch_parallel", ["at once", "wait for all answers"]),
    # Several calls of `dispatch` in one turn run one after the other.
    ("several at once, by dispatch", "dispatch", ["one after the other", "dispatch_parallel"]),
    ("to watch a running job", "dispatch_status", ["without waiting", "progress"]),
    ("a JSON value", "dispatch", ["response_format", "json_schema", "JSON"]),
    # The cache would repeat the answer from before the fix.
    ("the same check again after a fix", "dispatch", ["cache", "fresh"]),
    ("what to do about a denied Bash", "dispatch", ["denied_tools", "may be incomplete"]),
    ("to grant Bash", "update_agent", ["More rights are for your user to grant: ask first"]),
    ("what it cost", "dispatch_jobs", ["cost"]),
    ("one more sentence to a running job", "dispatch_send", ["Tell a working agent"]),
    ("a task of many minutes", "dispatch_async", ["background", "tasks of minutes"]),
    ("to go on after a timeout", "dispatch_session", ["after a timeout", "session_id"]),
    ("two agents to settle a question", "dispatch_dialogue", ["Two agents", "resolves"]),
]


@pytest.mark.parametrize(
    ("wanted", "tool", "words"), SCENARIOS, ids=[wanted for wanted, _, _ in SCENARIOS]
)
def test_the_description_leads_to_the_tool(wanted: str, tool: str, words: list[str]) -> None:
    (entry,) = (one.listing() for one in TOOLS if one.name == tool)
    said = json.dumps(entry, ensure_ascii=False)
    assert [word for word in words if word not in said] == [], wanted


@pytest.mark.parametrize("tool", ["dispatch", "dispatch_stream", "dispatch_async"])
async def test_a_session_given_to_another_tool_leads_to_the_one_with_sessions(tool: str) -> None:
    said = await error_of(tool, agent="infra", task="x", session_id="s-1")
    assert "'session_id' (to continue a session, call dispatch_session with it)" in said
