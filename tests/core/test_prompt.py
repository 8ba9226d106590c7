import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_dispatch.core.request.checks import check_request
from agent_dispatch.core.request.prompt import build_prompt
from agent_dispatch.core.stream.events import ControlRequest, ControlRequestEvent
from agent_dispatch.core.stream.stdin import interrupt_line, refusal_line, user_line
from agent_dispatch.errors import InvalidRequestError
from agent_dispatch.model.dispatch import DispatchRequest
from tests.core.builders import SESSION


def request(**changes: Any) -> DispatchRequest:
    return DispatchRequest(**({"agent": "infra", "task": "List the pods"} | changes))


@pytest.mark.parametrize(
    ("changes", "prompt"),
    [
        ({}, "List the pods"),
        ({"task": "- a\n- b"}, "- a\n- b"),
        ({"task": "--version"}, "--version"),
        ({"context": "Error: x"}, "Context:\nError: x\n\nTask:\nList the pods"),
        ({"caller": "backend"}, "## Dispatched by\n\nbackend\n\n## Task\n\nList the pods"),
        (
            {"caller": "backend", "goal": "Fix it", "context": "Error: x"},
            (
                "## Goal\n\nFix it\n\n## Dispatched by\n\nbackend\n\n## Context\n\nError: x"
                "\n\n## Task\n\nList the pods"
            ),
        ),
        ({"goal": "Fix it", "task": "/compact"}, "## Goal\n\nFix it\n\n## Task\n\n/compact"),
        ({"task": "/help"}, "Task:\n/help"),
        ({"task": " \n\ufeff/help"}, "Task:\n \n\ufeff/help"),
        ({"task": "see /help"}, "see /help"),
        ({"context": "/help"}, "Context:\n/help\n\nTask:\nList the pods"),
        ({"group": "shop"}, "## Shared context\n\nFacts\n\n## Task\n\nList the pods"),
        (
            {"group": "shop", "goal": "Fix it", "caller": "backend", "context": "Error: x"},
            (
                "## Goal\n\nFix it\n\n## Dispatched by\n\nbackend\n\n## Shared context\n\nFacts"
                "\n\n## Context\n\nError: x\n\n## Task\n\nList the pods"
            ),
        ),
        ({"caller": " ", "goal": "\n", "context": "\ufeff"}, "List the pods"),
    ],
)
def test_a_prompt_has_its_parts_in_a_fixed_order(changes: dict[str, Any], prompt: str) -> None:
    shared = "Facts" if "group" in changes else ""
    assert build_prompt(request(**changes), shared) == prompt


@pytest.mark.parametrize("changes", [{}, {"goal": "Fix it"}, {"context": "x"}, {"task": "/x"}])
def test_json_adds_an_instruction_behind_the_task(changes: dict[str, Any]) -> None:
    plain = build_prompt(request(**changes))
    prompt = build_prompt(request(response_format="json", **changes))
    assert prompt.startswith(plain + "\n\n")
    assert "one JSON value" in prompt.removeprefix(plain)


@given(st.text(), st.text(), st.text(), st.text())
def test_no_prompt_begins_with_a_command(task: str, context: str, caller: str, goal: str) -> None:
    prompt = build_prompt(request(task=task, context=context, caller=caller, goal=goal))
    assert not prompt.strip().strip("\ufeff").strip().startswith("/")
    assert task in prompt


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"task": ""}, "task is empty"),
        ({"task": " \t\n\u00a0\ufeff"}, "task is empty"),
        ({"task": "nul\0byte"}, "task contains a NUL"),
        ({"task": "half \ud800"}, "task contains half of a surrogate pair"),
        ({"agent": "x\0"}, "agent contains a NUL"),
        ({"context": "\udfff"}, "context contains half"),
        ({"caller": "\0"}, "caller contains a NUL"),
        ({"goal": "\0"}, "goal contains a NUL"),
        ({"session_id": "\0"}, "session_id contains a NUL"),
        ({"response_format": "\0"}, "response_format contains a NUL"),
        ({"json_schema": "{\0}"}, "json_schema contains a NUL"),
        ({"json_schema": "{"}, "json_schema is not JSON"),
        ({"json_schema": "[" * 5000}, "json_schema is not JSON"),
        ({"json_schema": "true"}, "json_schema must be an object"),
        ({"json_schema": '{"title": "%s"}' % ("x" * 100_000)}, "at most 100,000"),
        ({"response_format": "JSON"}, 'use "json"'),
        ({"response_format": "xml"}, 'use "json"'),
        ({"session_id": ""}, "Leave it out"),
        ({"session_id": "x"}, "Leave it out"),
        ({"session_id": "-r"}, "Leave it out"),
        ({"session_id": "{" + SESSION + "}"}, "Leave it out"),
        ({"session_id": SESSION + "\n"}, "Leave it out"),
        ({"session_id": "x" * 10_000}, "x'…"),
        ({"group": "\0"}, "group contains a NUL"),
        ({"group": "shop", "session_id": SESSION}, "group and session cannot be combined"),
        ({"timeout_s": math.nan}, "seconds above 0"),
        ({"timeout_s": math.inf}, "seconds above 0"),
        ({"timeout_s": -5}, "seconds above 0"),
        ({"timeout_s": 0}, "seconds above 0"),
        ({"model": "\0"}, "model contains a NUL"),
        ({"model": "--bare"}, "model '--bare' is not a model"),
        ({"effort": " -x"}, "effort ' -x' is not an effort"),
        ({"effort": "high\n"}, "for the agent's own"),
        ({"context": "é" * 5_000_000}, "Put the material into a file"),
    ],
)
def test_a_request_that_cannot_be_sent_is_refused_by_name(
    changes: dict[str, Any], names: str
) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        check_request(request(**changes))
    assert names in str(refused.value)
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"task": "--version"},
        {"task": "/help"},
        {"context": "x" * 200_000},
        {"context": "x" * 9_900_000},
        {"task": "emoji \U0001f600 and \u2028"},
        {"response_format": "json"},
        {"json_schema": '{"type": "object"}'},
        {"json_schema": "{}"},
        {"session_id": SESSION},
        {"session_id": SESSION.upper()},
        {"timeout_s": 0.5},
        {"model": "claude-opus-5-5[1m]"},
        {"effort": "beyond-max"},
    ],
)
def test_a_request_that_can_be_sent_passes(changes: dict[str, Any]) -> None:
    check_request(request(**changes))


@given(st.text())
def test_a_user_line_is_one_line_with_the_prompt(prompt: str) -> None:
    line = user_line(prompt)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert json.loads(line) == {"type": "user", "message": {"role": "user", "content": prompt}}


def test_an_interrupt_is_a_control_request() -> None:
    assert json.loads(interrupt_line("r1")) == {
        "type": "control_request",
        "request_id": "r1",
        "request": {"subtype": "interrupt"},
    }


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ("elicitation", {"subtype": "success", "response": {"action": "cancel"}}),
        (
            "can_use_tool",
            {
                "subtype": "success",
                "response": {
                    "behavior": "deny",
                    "message": "Nobody can be asked in a dispatch.",
                },
            },
        ),
        (
            "hook_callback",
            {"subtype": "error", "error": "agent-dispatch does not support this request"},
        ),
    ],
)
def test_a_question_of_the_cli_is_never_left_open(asked: str, answer: dict[str, Any]) -> None:
    event = ControlRequestEvent(request_id="q1", request=ControlRequest(subtype=asked))
    assert json.loads(refusal_line(event)) == {
        "type": "control_response",
        "response": {"request_id": "q1"} | answer,
    }
