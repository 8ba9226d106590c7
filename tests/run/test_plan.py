from pathlib import Path

import msgspec
import pytest

from agent_dispatch.config.schema import parse_config
from agent_dispatch.config.snapshot import ConfigSnapshot
from agent_dispatch.model.dispatch import DispatchRequest
from agent_dispatch.run.plan import plan_run


@pytest.mark.parametrize(
    ("asked", "model", "effort"),
    [
        ({}, "sonnet", "low"),
        ({"model": "opus"}, "opus", "low"),
        ({"effort": " max "}, "sonnet", "max"),
        ({"model": " ", "effort": ""}, "sonnet", "low"),
    ],
)
def test_model_and_effort_of_a_call_win_over_the_agents_own(
    asked: dict[str, object], model: str, effort: str
) -> None:
    table = {"directory": "/d", "model": "sonnet", "effort": "low"}
    snapshot = ConfigSnapshot(parse_config({"agents": {"a": table}}), Path("/c/agents.toml"))
    request = msgspec.structs.replace(DispatchRequest(agent="a", task="x"), **asked)
    agent = plan_run(snapshot, request).agent
    assert (agent.model, agent.effort) == (model, effort)
