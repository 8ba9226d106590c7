import json

import pytest

from agent_dispatch.model.dispatch import DispatchResult, ErrorType
from tests.cli.support import JOB_ID, FakeService, World


def test_each_message_is_printed_once(world: World) -> None:
    assert world.run("dialogue", "backend", "infra", "what is down?") == 0
    assert world.out == ("## Round 1: infra (responder)\n\nAll is well. [RESOLVED]\n")
    for said in ("1 round, settled, 5.0 s, $0.02", "infra: session 11111111", f"job {JOB_ID[-8:]}"):
        assert said in world.err
    (request,) = world.service.dialogues
    assert (request.requester, request.responder) == ("backend", "infra")
    assert (request.topic, request.max_rounds, request.timeout_s) == ("what is down?", 3, None)


def test_options_reach_the_service(world: World) -> None:
    world.stdin = "a long topic"
    options = ("--max-rounds", "5", "--timeout-seconds", "60")
    assert world.run("dialogue", "backend", "infra", "-", *options) == 0
    (request,) = world.service.dialogues
    assert (request.topic, request.max_rounds, request.timeout_s) == ("a long topic", 5, 60)


def test_json_is_what_the_tool_answers(world: World) -> None:
    assert world.run("dialogue", "backend", "infra", "topic", "--json") == 0
    answer = json.loads(world.out)
    assert answer["resolved"] is True
    assert answer["conversation"][0]["role"] == "responder"


@pytest.mark.parametrize(
    ("error_type", "status"), [(ErrorType.CLI_ERROR, 1), (ErrorType.TIMEOUT, 124)]
)
def test_a_failure_keeps_what_was_said(world: World, error_type: ErrorType, status: int) -> None:
    world.service = FakeService(
        DispatchResult(
            agent="infra", success=False, result="half", error="no", error_type=error_type
        )
    )
    assert world.run("dialogue", "backend", "infra", "topic") == status
    assert "half [RESOLVED]" in world.out
    assert world.out.count("half") == 1
    assert "1 round, not settled, 5.0 s, $0.02" in world.err
    assert f"error ({error_type}): no" in world.err
