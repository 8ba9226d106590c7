"""Groups as the file has them, and what a call that names one gets."""

import tomllib
from pathlib import Path

import msgspec
import pytest

from agent_dispatch.config.edit.draft import Draft
from agent_dispatch.config.edit.toml import TOML
from agent_dispatch.config.registry import Registry
from agent_dispatch.config.schema import BadTableError, parse_config
from agent_dispatch.errors import InvalidRequestError, UnknownGroupError
from agent_dispatch.model.config import Config, GroupConfig, GroupMember, UnknownKey
from agent_dispatch.model.dispatch import DispatchRequest
from agent_dispatch.run.plan import plan_run

SHOP = """\
[agents.backend]
directory = "/srv/backend"

[agents.infra]
directory = "/srv/infra"

[agents.other]
directory = "/srv/other"

# The shop and what runs it.
[groups.shop]
description = "Ask infra first"
shared_context = "The stack is shop-prod.\\nThe counter is 42."
members = [
    # writes the code
    { agent = "backend", use_for = "code" },
    { agent = "infra" },
    { agent = "gone", use_for = "nothing any more" },
]

[groups.quiet]
members = [{ agent = "infra" }]
"""


def _parse(text: str) -> Config:
    return parse_config(tomllib.loads(text))


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    (tmp_path / "agents.toml").write_text(SHOP)
    return Registry(tmp_path / "agents.toml")


def test_a_group_may_have_members_that_are_not_configured() -> None:
    config = _parse(SHOP)
    assert config.groups["shop"] == GroupConfig(
        description="Ask infra first",
        shared_context="The stack is shop-prod.\nThe counter is 42.",
        members=[
            GroupMember(agent="backend", use_for="code"),
            GroupMember(agent="infra"),
            GroupMember(agent="gone", use_for="nothing any more"),
        ],
    )
    assert (config.broken_groups, config.unknown_keys, config.warnings) == ({}, (), ())


def test_members_may_be_an_array_of_tables() -> None:
    config = _parse(
        '[groups.g]\n[[groups.g.members]]\nagent = "a"\n[[groups.g.members]]\nagent="b"'
    )
    assert [member.agent for member in config.groups["g"].members] == ["a", "b"]


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ("groups.g = 3", "expected a table with members"),
        ("[groups.g]\ndescription = 3", "description: expected text"),
        ('[groups.g]\nmembers = "infra"', "members: expected an array of tables"),
        ('[groups.g]\nmembers = ["infra"]', "expected each member as a table with an agent"),
        ('[groups.g]\nmembers = [{use_for = "x"}]', "expected each member as a table"),
        ('[groups.g]\nmembers = [{agent = "-x"}]', "expected each member as a table"),
        ('[groups.g]\nmembers = [{agent = "x", use_for = 1}]', "expected text"),
        ('[groups."a b"]', "its name is not made of"),
    ],
)
def test_a_broken_group_is_named_and_breaks_nothing_else(table: str, problem: str) -> None:
    config = _parse(f'{table}\n[agents.a]\ndirectory = "/a"')
    [said] = config.broken_groups.values()
    assert problem in said
    assert (list(config.agents), config.broken, config.groups) == (["a"], {}, {})


def test_groups_that_are_no_table_are_a_mistake_of_the_file() -> None:
    with pytest.raises(BadTableError, match="groups: expected a table of groups"):
        _parse("groups = 3")


def test_unknown_keys_of_groups_and_members_are_reported() -> None:
    config = _parse('[groups.g]\nmember = []\nmembers = [{agent = "a", usefor = "x"}]')
    assert config.unknown_keys == (
        UnknownKey("groups.g", "member", "members"),
        UnknownKey("groups.g.members", "usefor", "use_for"),
    )


def test_each_agent_is_listed_with_its_groups(registry: Registry) -> None:
    rows = {row["name"]: row for row in msgspec.to_builtins(registry.list_agents())}
    assert rows["infra"]["groups"] == ["shop", "quiet"]
    assert rows["backend"]["groups"] == ["shop"]
    assert "groups" not in rows["other"]
    assert registry.inspect_agent("infra").groups == ["shop", "quiet"]


def test_a_caller_can_see_what_a_group_says_about_an_agent(registry: Registry) -> None:
    shown = msgspec.to_builtins(registry.inspect_agent("backend").memberships)
    assert shown == [{"group": "shop", "description": "Ask infra first", "use_for": "code"}]
    assert registry.inspect_agent("other").memberships is None
    # The group `quiet` says nothing.
    assert [m.group for m in registry.inspect_agent("infra").memberships or ()] == ["shop"]


def test_a_task_for_a_member_goes_with_the_shared_context(registry: Registry) -> None:
    request = DispatchRequest(agent="infra", task="look", context="c", goal="g", group="shop")
    plan = plan_run(registry.snapshot(), request)
    assert plan.prompt == (
        "## Goal\n\ng\n\n## Shared context\n\nThe stack is shop-prod.\nThe counter is 42."
        "\n\n## Context\n\nc\n\n## Task\n\nlook"
    )


def test_a_group_without_shared_context_leaves_its_section_out(registry: Registry) -> None:
    request = DispatchRequest(agent="infra", task="/look", group="quiet")
    assert plan_run(registry.snapshot(), request).prompt == "## Task\n\n/look"


def test_a_call_with_an_unknown_group_or_with_an_agent_outside_it_is_refused(
    registry: Registry,
) -> None:
    with pytest.raises(UnknownGroupError) as unknown:
        plan_run(registry.snapshot(), DispatchRequest(agent="infra", task="t", group="shp"))
    assert str(unknown.value) == "Unknown group: 'shp'. Did you mean shop? Available: quiet, shop"
    with pytest.raises(InvalidRequestError) as stranger:
        plan_run(registry.snapshot(), DispatchRequest(agent="other", task="t", group="shop"))
    assert str(stranger.value) == (
        "Agent 'other' is not a member of group 'shop'. Members: backend, infra, gone"
    )


def test_a_call_with_a_broken_group_is_refused_with_its_problem(tmp_path: Path) -> None:
    (tmp_path / "agents.toml").write_text('[agents.a]\ndirectory = "/a"\n[groups]\ng = 1\n')
    with pytest.raises(InvalidRequestError, match="Group 'g' is not usable: expected a table"):
        plan_run(
            Registry(tmp_path / "agents.toml").snapshot(),
            DispatchRequest(agent="a", task="t", group="g"),
        )


def test_long_members_are_written_one_to_a_line_and_other_text_stays() -> None:
    draft = Draft(SHOP, TOML)
    members = [{"agent": f"agent-{number}", "use_for": "some work"} for number in range(4)]
    draft.set_keys(("groups", "quiet"), {"members": members})
    assert draft.text == SHOP.replace(
        'members = [{ agent = "infra" }]\n',
        "members = [\n"
        + "".join(f'    {{ agent = "agent-{n}", use_for = "some work" }},\n' for n in range(4))
        + "]\n",
    )
    assert tomllib.loads(draft.text)["groups"]["quiet"]["members"] == members
