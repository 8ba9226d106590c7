"""Changes of rights: whose they are, and where they are written down."""

import stat
from pathlib import Path
from typing import Any

import pytest

from agent_dispatch.config.agents import add_agent, update_agent
from agent_dispatch.config.registry import Registry
from agent_dispatch.config.yaml_import import import_yaml
from agent_dispatch.core.agents.rights import WideningError
from agent_dispatch.errors import InvalidRequestError
from agent_dispatch.model.rights import ChangedBy

SETTINGS = """
[settings]
default_permission_mode = "acceptEdits"
default_allowed_tools = ["Read"]
default_max_budget_usd = 2
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "agents.toml"


@pytest.fixture
def project(tmp_path: Path) -> str:
    directory = tmp_path / "project"
    directory.mkdir()
    return str(directory)


def registry_at(config: Path, depth: str = "") -> Registry:
    return Registry(config, environ={"AGENT_DISPATCH_DEPTH": depth})


def changes_of(registry: Registry, name: str = "a") -> list[tuple[str, Any, Any, str]]:
    changes = registry.inspect_agent(name).rights_changes or []
    return [(change.key, change.old, change.new, change.by) for change in changes]


@pytest.mark.parametrize(
    ("fields", "keys"),
    [
        ({"permission_mode": "bypassPermissions"}, ["permission_mode"]),
        ({"permission_mode": "none"}, []),
        ({"allowed_tools": "Read,Write"}, ["allowed_tools"]),
        ({"allowed_tools": "none"}, ["allowed_tools"]),
        ({"allowed_tools": "[]"}, []),
        ({"disallowed_tools": "none"}, ["disallowed_tools"]),
        ({"max_budget_usd": 1.5}, ["max_budget_usd"]),
        ({"max_budget_usd": -1}, ["max_budget_usd"]),
        ({"max_budget_usd": 0.5}, []),
        ({"description": "x", "timeout": 900}, []),
    ],
)
def test_a_model_narrows_rights_and_asks_for_more(
    fields: Any, keys: list[str], config: Path, project: str
) -> None:
    config.write_text(
        f'[agents.a]\ndirectory = "{project}"\npermission_mode = "auto"\n'
        f'allowed_tools = ["Write"]\ndisallowed_tools = ["Bash"]\nmax_budget_usd = 1\n{SETTINGS}'
    )
    registry, before = registry_at(config), config.read_text()
    if not keys:
        update_agent(registry, "a", by=ChangedBy.MCP, **fields)
        return
    with pytest.raises(WideningError) as refused:
        update_agent(registry, "a", by=ChangedBy.MCP, **fields)
    assert list(refused.value.changes) == keys
    assert config.read_text() == before
    (step,) = refused.value.next_steps
    assert step.command.startswith("agent-dispatch update a --")
    assert changes_of(registry) == []
    for by in (ChangedBy.ELICITATION, ChangedBy.CLI):
        config.write_text(before)
        update_agent(registry, "a", by=by, **fields)
        assert [(key, by) for key, _, _, by in changes_of(registry)][-1] == (keys[0], by)
    config.write_text(before + "mcp_may_widen_permissions = true\n")
    update_agent(registry, "a", by=ChangedBy.MCP, **fields)
    assert changes_of(registry)[-1][3] == "mcp"


@pytest.mark.parametrize(
    ("fields", "keys"),
    [
        ({}, []),
        ({"permission_mode": "plan", "max_budget_usd": 1, "disallowed_tools": "Bash"}, []),
        ({"allowed_tools": "Bash"}, ["allowed_tools"]),
        ({"permission_mode": "auto"}, ["permission_mode"]),
    ],
)
def test_a_model_adds_agents_with_what_they_inherit(
    fields: Any, keys: list[str], config: Path, project: str
) -> None:
    config.write_text(SETTINGS)
    registry = registry_at(config)
    if not keys:
        assert add_agent(registry, "a", project, by=ChangedBy.MCP, **fields).action == "added"
        return
    with pytest.raises(WideningError) as refused:
        add_agent(registry, "a", project, by=ChangedBy.MCP, **fields)
    assert list(refused.value.changes) == keys
    assert refused.value.next_steps[0].command.startswith(f"agent-dispatch add a {project} --")
    assert config.read_text() == SETTINGS


def test_a_model_cannot_add_an_agent_that_inherits_bypass_permissions(
    config: Path, project: str
) -> None:
    config.write_text('[settings]\ndefault_permission_mode = "bypassPermissions"\n')
    registry = registry_at(config)
    with pytest.raises(WideningError):
        add_agent(registry, "a", project, by=ChangedBy.MCP)
    add_agent(registry, "a", project, by=ChangedBy.MCP, permission_mode="plan")


@pytest.mark.parametrize("by", list(ChangedBy))
def test_a_dispatched_agent_widens_nothing_by_any_way(
    by: ChangedBy, config: Path, project: str, tmp_path: Path
) -> None:
    config.write_text(
        f'[agents.a]\ndirectory = "{project}"\n[settings]\nmcp_may_widen_permissions = true\n'
    )
    nested, before = registry_at(config, "1"), config.read_text()
    with pytest.raises(WideningError, match="dispatched agent"):
        update_agent(nested, "a", by=by, allowed_tools="Bash")
    with pytest.raises(WideningError, match="dispatched agent"):
        update_agent(nested, "a", by=by, allow="Bash")
    with pytest.raises(WideningError, match="dispatched agent"):
        add_agent(nested, "b", project, by=by, permission_mode="auto")
    source = tmp_path / "old.yaml"
    for text in (
        f"agents: {{b: {{directory: {project}, allowed_tools: [Bash]}}}}",
        "settings: {default_permission_mode: bypassPermissions}",
        "settings: {default_allowed_tools: [Bash]}",
    ):
        source.write_text(text)
        with pytest.raises(WideningError):
            import_yaml(source, nested)
    assert config.read_text() == before
    source.write_text(f"agents: {{b: {{directory: {project}}}}}")
    assert import_yaml(source, nested).added == ["b"]
    update_agent(nested, "a", by=by, disallowed_tools="Bash")
    add_agent(nested, "c", project, by=by, permission_mode="plan")


def test_a_rule_is_added_to_the_list(config: Path, project: str) -> None:
    config.write_text(f'[agents.a]\ndirectory = "{project}"\n{SETTINGS}')
    registry = registry_at(config)
    assert update_agent(registry, "a", allow="Read").action == "unchanged"
    update_agent(registry, "a", allow="Bash(git log:*,git diff:*),Write")
    assert registry.inspect_agent("a").allowed_tools == [
        "Read",
        "Bash(git log:*,git diff:*)",
        "Write",
    ]
    assert update_agent(registry, "a", allow="Write").action == "unchanged"
    update_agent(registry, "a", allowed_tools="[]", allow="Grep")
    assert registry.inspect_agent("a").allowed_tools == ["Grep"]
    with pytest.raises(WideningError):
        update_agent(registry, "a", by=ChangedBy.MCP, allow="Bash")


def test_each_change_of_rights_is_written_down(config: Path, project: str, tmp_path: Path) -> None:
    registry = registry_at(config)
    add_agent(registry, "a", project, allowed_tools="Read", description="x")
    update_agent(registry, "a", allowed_tools="Read", description="y")
    update_agent(registry, "a", allowed_tools="none", max_budget_usd=3, by=ChangedBy.ELICITATION)
    source = tmp_path / "old.yaml"
    source.write_text(f"agents: {{a: {{directory: {project}, permission_mode: plan}}}}")
    assert import_yaml(source, registry, overwrite=True).replaced == ["a"]
    assert changes_of(registry) == [
        ("allowed_tools", None, ["Read"], "cli"),
        ("allowed_tools", ["Read"], None, "elicitation"),
        ("max_budget_usd", None, 3, "elicitation"),
        ("permission_mode", None, "plan", "cli"),
        ("max_budget_usd", 3, None, "cli"),
    ]
    log = config.with_name("agents.rights.jsonl")
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    log.write_bytes(b"{torn\n\xff\n[]\n" + log.read_bytes() + b'{"at": 1, "agen')
    assert len(changes_of(registry)) == 5
    add_agent(registry, "b", project)
    assert changes_of(registry, "b") == []


def test_a_change_that_cannot_be_written_down_is_made_and_says_so(
    config: Path, project: str
) -> None:
    config.with_name("agents.rights.jsonl").mkdir()
    change = add_agent(registry_at(config), "a", project, allowed_tools="Read")
    assert any("could not be logged" in warning for warning in change.warnings or ())


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("make test", ["make", "test"]),
        ("sh -c 'make test && echo ok'", ["sh", "-c", "make test && echo ok"]),
        ('["./check", "a b"]', ["./check", "a b"]),
    ],
)
def test_a_person_sets_the_command_that_verifies(
    text: str, command: list[str], config: Path, project: str
) -> None:
    registry = registry_at(config)
    add_agent(registry, "a", project)
    assert update_agent(registry, "a", verify=text).changed == ["verify"]
    assert registry.inspect_agent("a").verify == command
    assert update_agent(registry, "a", verify=text).action == "unchanged"
    assert update_agent(registry, "a", verify="none").changed == ["verify"]
    assert registry.inspect_agent("a").verify is None


@pytest.mark.parametrize(
    "text", ["make 'test", '["make", 7]', '["make"', "''", '["make", ' + "[" * 5000]
)
def test_a_command_that_cannot_be_read_is_refused(text: str, config: Path, project: str) -> None:
    registry = registry_at(config)
    add_agent(registry, "a", project)
    with pytest.raises(InvalidRequestError, match="verify"):
        update_agent(registry, "a", verify=text)


def test_a_dispatched_agent_sets_no_command_that_we_run(
    config: Path, project: str, tmp_path: Path
) -> None:
    add_agent(registry_at(config), "a", project)
    nested = registry_at(config, depth="1")
    with pytest.raises(WideningError, match="verify"):
        add_agent(nested, "b", project, verify="make test")
    with pytest.raises(WideningError, match="verify") as refused:
        update_agent(nested, "a", verify="make test")
    (step,) = refused.value.next_steps
    assert step.command == "agent-dispatch update a '--verify=make test'"
    file = tmp_path / "agents.yaml"
    file.write_text(f"agents:\n  b:\n    directory: {project}\n    verify: [make, test]\n")
    with pytest.raises(WideningError, match="verify"):
        import_yaml(file, nested)
    update_agent(registry_at(config), "a", verify="make test")
    assert update_agent(nested, "a", verify="none").changed == ["verify"]


def test_a_model_may_repair_an_agent_that_has_a_command(config: Path, project: str) -> None:
    config.write_text(
        f"[agents.a]\ndirectory = '{project}'\ntimeout = 'soon'\nverify = ['make', 'test']\n"
    )
    change = update_agent(registry_at(config), "a", by=ChangedBy.MCP, timeout=60)
    assert change.changed == ["timeout"]


def test_an_agent_that_asks_shows_it(config: Path, project: str) -> None:
    registry = registry_at(config)
    add_agent(registry, "a", project)
    assert registry.inspect_agent("a").permission_prompts is None
    update_agent(registry, "a", permission_prompts="ask")
    assert registry.inspect_agent("a").permission_prompts == "ask"
    update_agent(registry, "a", permission_prompts="none")
    config.write_text(config.read_text() + '[settings]\npermission_prompts = "ask"\n')
    assert registry.inspect_agent("a").permission_prompts == "ask"
    update_agent(registry, "a", permission_prompts="deny")
    assert registry.inspect_agent("a").permission_prompts is None
