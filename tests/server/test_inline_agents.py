import json

import msgspec
import pytest

from agent_dispatch.model.agent import AgentSummary
from agent_dispatch.server.inline.agents import NOTE_FIELD, fit_agents

LIMIT = 40_000


def agents(count: int, description: str = "Looks after the cluster. " * 4) -> list[AgentSummary]:
    return [
        AgentSummary(
            name=f"agent-{number:04}",
            directory=f"/home/user/projects/agent-{number:04}",
            description=description,
            healthy=number != 3,
            problem="the directory is missing" if number == 3 else None,
            has_claude_md=True,
            has_mcp_config=False,
            stacks=["Python", "Docker"],
            permission_mode="plan",
            allowed_tools=["Read", "Bash(git log:*)"],
        )
        for number in range(count)
    ]


def as_text(rows: object) -> str:
    return msgspec.json.encode(rows).decode()


def test_a_list_that_fits_goes_out_whole() -> None:
    few = agents(20)
    assert fit_agents(few) is few
    assert fit_agents([]) == []


@pytest.mark.parametrize("count", [250, 500, 1000])
@pytest.mark.parametrize(
    "description", ["Looks after the cluster. " * 4, "é" * 5_000, '"' * 500, ""]
)
def test_a_long_list_keeps_all_names_and_says_what_is_missing(count: int, description: str) -> None:
    many = agents(count, description)
    text = as_text(fit_agents(many))
    assert len(text) <= LIMIT
    rows = json.loads(text)
    assert [row["name"] for row in rows] == [agent.name for agent in many]
    assert rows[3]["healthy"] is False
    assert "inspect_agent" in rows[0][NOTE_FIELD]
    for key in set(msgspec.to_builtins(many[0])) - set(rows[0]):
        assert key in rows[0][NOTE_FIELD] or not rows[0].get(key)
    assert all(NOTE_FIELD not in row for row in rows[1:])


def test_descriptions_are_cut_last() -> None:
    rows = json.loads(as_text(fit_agents(agents(150))))
    assert rows[0]["description"] == "Looks after the cluster. " * 4
    assert "allowed_tools" not in rows[0]
    rows = json.loads(as_text(fit_agents(agents(500))))
    assert rows[0]["description"].startswith("Looks after the")


def test_one_long_text_takes_nothing_else_from_a_list() -> None:
    rows = json.loads(as_text(fit_agents([*agents(2, "x" * 50_000), *agents(20)])))
    assert rows[0]["allowed_tools"] == ["Read", "Bash(git log:*)"]
    assert len(rows[0]["description"]) == 200


def test_a_description_that_is_not_utf_8_can_be_measured() -> None:
    assert len(fit_agents(agents(300, "caf\udce9 " * 40))) == 300
