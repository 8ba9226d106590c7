import json
from typing import Annotated, Any

import jsonschema  # type: ignore[import-untyped]  # ships none
import msgspec
import pytest
import trio
import trio.testing

from agent_dispatch.model.dispatch import OnProgress
from agent_dispatch.model.rights import ChangedBy
from agent_dispatch.run.service import Service
from agent_dispatch.server.calls.envelope import Envelope
from agent_dispatch.server.tools.agents import NoParams
from agent_dispatch.server.tools.catalogue import INSTRUCTIONS, TOOLS
from agent_dispatch.server.tools.tool import Tool, input_schema
from tests.server.calling import call, call_with, error_in
from tests.server.fake_service import FakeService


async def test_a_list_is_text_only_and_an_object_is_structured_too() -> None:
    listed = await call("list_agents")
    assert json.loads(listed.text)[0]["name"] == "infra"
    assert listed.structured is None
    inspected = await call("inspect_agent", name="infra")
    assert json.loads(inspected.text) == inspected.structured


async def test_text_is_compact_and_not_escaped() -> None:
    answer = await call("dispatch", agent="infra", task="grüße 🙂")
    assert '"result":"did: grüße 🙂"' in answer.text


async def test_a_null_that_was_parsed_is_shown() -> None:
    answer = await call("dispatch", agent="infra", task="json")
    assert answer.structured is not None
    assert answer.structured["parsed_result"] is None
    assert '"parsed_result":null' in answer.text


async def test_a_failed_run_is_a_result_and_no_error() -> None:
    answer = await call("dispatch", agent="infra", task="denied")
    assert not answer.is_error
    assert answer.structured is not None
    assert answer.structured["error_type"] == "permission"


async def test_an_unknown_agent_is_an_envelope() -> None:
    assert (
        error_in(await call("dispatch", agent="foo", task="x"))
        == "Unknown agent: 'foo'. Available: infra"
    )


async def test_an_unknown_tool_names_the_nearest_one() -> None:
    said = error_in(await call("dispach"))
    assert said.startswith("Unknown tool: 'dispach' (did you mean 'dispatch'?). Available: list_")
    assert len(error_in(await call("x" * 10_000))) < 400
    assert "\ufffd" not in error_in(await call("\ud800"))


async def test_a_bug_is_an_envelope_that_says_so_and_leaves_a_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    said = error_in(await call("dispatch", agent="infra", task="bug"))
    assert said.startswith(
        "Bug in agent-dispatch: dispatch failed with ZeroDivisionError: by \ufffd zero"
    )
    assert "Traceback" in caplog.text


async def test_a_failure_while_being_cancelled_is_logged_and_the_call_is_cancelled(
    caplog: pytest.LogCaptureFixture,
) -> None:
    service = FakeService()
    with trio.fail_after(5), trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel_when, service.running, scope)
            with pytest.raises(trio.Cancelled):
                await call("dispatch", service, agent="infra", task="group")
    assert "while being cancelled" in caplog.text


async def test_a_cancelled_call_raises_a_plain_cancelled() -> None:
    service = FakeService()
    with trio.fail_after(5), trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel_when, service.running, scope)
            with pytest.raises(trio.Cancelled):
                await call("dispatch", service, agent="infra", task="forever")
    assert service.events == ["cancelled", "cleaned up"]


async def cancel_when(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


async def test_file_names_that_are_not_valid_text_are_shown() -> None:
    answer = await call("list_agents", FakeService(description="caf\udce9"))
    assert json.loads(answer.text)[0]["description"] == "caf\ufffd"
    answer = await call("inspect_agent", FakeService(description="caf\udce9"), name="infra")
    assert answer.structured is not None
    assert answer.structured["description"] == "caf\ufffd"


async def test_a_dispatch_request_carries_every_argument() -> None:
    service = FakeService()
    await call(
        "dispatch",
        service,
        agent="infra",
        task="look",
        context="c",
        caller="me",
        goal="g",
        response_format="json",
        timeout_seconds="60",
        group="shop",
        model="opus",
        effort="high",
        verify=True,
        fresh=True,
    )
    request = service.requests[0]
    assert (request.verify, service.calls[0]) == (True, ("dispatch", (False, True)))
    assert request.group == "shop"
    assert (request.model, request.effort) == ("opus", "high")
    assert (request.context, request.caller, request.goal) == ("c", "me", "g")
    assert (request.response_format, request.timeout_s) == ("json", 60)


@pytest.mark.parametrize(("asked", "meant"), [(-1, 0), (0, 0), ("7", 7), (5000, 200)])
async def test_preview_lines_are_brought_into_their_range(asked: object, meant: int) -> None:
    service = FakeService()
    await call("inspect_agent", service, name="infra", preview_lines=asked)
    assert service.calls == [("inspect_agent", meant)]


async def test_long_instructions_are_shown_by_their_beginning() -> None:
    answer = await call("inspect_agent", name="infra")
    assert answer.structured is not None
    assert answer.structured["instructions"] == "i" * 1999 + "…"


async def test_agents_are_changed_with_every_argument() -> None:
    service = FakeService()
    settings = {
        "description": "d",
        "timeout": 90.0,
        "max_budget_usd": 1.5,
        "model": "m",
        "permission_mode": "plan",
        "allowed_tools": "Read,Bash(git log:*,git diff:*)",
        "disallowed_tools": "none",
    }
    await call("add_agent", service, name="new", directory="~/x", **settings)
    await call("update_agent", service, name="infra", **settings)
    asked = settings | {"by": ChangedBy.MCP}
    assert service.calls == [("add_agent", asked), ("update_agent", asked)]
    removed = await call("remove_agent", service, name="infra")
    assert removed.structured is not None
    assert removed.structured["action"] == "removed"


@pytest.mark.parametrize("tool", ["add_agent", "update_agent"])
async def test_tools_may_be_a_list(tool: str) -> None:
    service = FakeService()
    where = {"directory": "/x"} if tool == "add_agent" else {}
    rules = ["Read", "Bash(git log:*,git diff:*)"]
    answer = await call(
        tool, service, name="infra", allowed_tools=rules, disallowed_tools=[], **where
    )
    assert not answer.is_error
    [(_, fields)] = service.calls
    assert isinstance(fields, dict)
    assert json.loads(fields["allowed_tools"]) == rules
    assert fields["disallowed_tools"] == "[]"
    said = error_in(await call(tool, name="a", allowed_tools=5, **where))
    assert "'allowed_tools' must be text or a list" in said


def listing() -> dict[str, dict[str, Any]]:
    return {tool.name: tool.listing() for tool in TOOLS}


def test_only_reading_tools_are_marked_read_only() -> None:
    marks = {name: entry["annotations"].get("readOnlyHint") for name, entry in listing().items()}
    assert {name for name, read_only in marks.items() if read_only} == {
        "list_agents",
        "inspect_agent",
        "dispatch_status",
        "dispatch_wait",
        "dispatch_jobs",
        "fetch_result",
        "cache_stats",
    }


def test_every_argument_is_described_and_no_other_is_allowed() -> None:
    for entry in listing().values():
        schema = entry["inputSchema"]
        jsonschema.Draft202012Validator.check_schema(schema)
        assert schema["type"] == "object"
        assert schema["additionalProperties"] is False
        parameters = set(schema["properties"])
        described = {name for name, field in schema["properties"].items() if "description" in field}
        if "arameters as in dispatch" in entry["description"] or entry["name"] == "dispatch_stream":
            described |= set(listing()["dispatch"]["inputSchema"]["properties"])
        assert parameters <= described


def test_the_instructions_fit_what_claude_code_shows() -> None:
    assert len(INSTRUCTIONS.encode()) < 2048


async def test_a_conversation_goes_on_by_its_session_id() -> None:
    service = FakeService()
    session = "11111111-2222-4333-8444-555555555555"
    for session_id in ("", session):
        answer = await call(
            "dispatch_session",
            service,
            agent="infra",
            task="go on",
            timeout_seconds=60,
            session_id=session_id,
            model="opus",
            effort="high",
            verify=True,
        )
        assert not answer.is_error
    first, second = service.requests
    assert (first.session_id, second.session_id) == (None, session)
    assert (second.task, second.timeout_s) == ("go on", 60)
    assert (second.model, second.effort, second.verify) == ("opus", "high", True)


def test_the_list_of_tools_stays_small() -> None:
    assert len(msgspec.json.encode(list(listing().values()))) <= 18_000


def test_no_answer_has_a_schema() -> None:
    assert not [name for name, entry in listing().items() if "outputSchema" in entry]


def test_a_schema_leaves_out_repeated_descriptions_and_empty_defaults() -> None:
    class First(msgspec.Struct):
        same: Annotated[str, msgspec.Meta(description="S")]
        other: Annotated[int, msgspec.Meta(description="O")] = 0

    class Second(First):
        other: Annotated[int, msgspec.Meta(description="not as there")] = 3

    assert input_schema(Second, First)["properties"] == {
        "same": {"type": "string"},
        "other": {"type": "integer", "description": "not as there", "default": 3},
    }
    assert input_schema(First)["properties"] == {
        "same": {"type": "string", "description": "S"},
        "other": {"type": "integer", "description": "O"},
    }


async def test_an_answer_that_is_a_dict_is_structured_too() -> None:
    async def run(service: Service, params: NoParams, on_progress: OnProgress) -> dict[str, int]:
        await trio.lowlevel.checkpoint()
        return {"n": 1}

    tool = Tool(name="t", title="T", description="d", params=NoParams, run=run)
    answer = await call_with("t", None, tools=[tool])
    assert answer == Envelope('{"n":1}', {"n": 1})


# Twelve wishes of a caller, and the tool whose description must lead to it.
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
    said = error_in(await call(tool, agent="infra", task="x", session_id="s-1"))
    assert "'session_id' (to continue a session, call dispatch_session with it)" in said
