import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent_dispatch.config.agents import add_agent, remove_agent, update_agent
from agent_dispatch.config.keys import AGENT_KEYS, CACHE_KEYS, HOST_KEYS, REMOTE_KEYS, SETTING_KEYS
from agent_dispatch.config.registry import Registry
from agent_dispatch.errors import (
    ConfigError,
    InvalidRequestError,
    UnknownAgentError,
    UnusableAgentError,
)
from agent_dispatch.model.agent import AgentFields
from agent_dispatch.model.config import (
    AgentConfig,
    CacheSettings,
    EffectiveAgent,
    HostConfig,
    Settings,
)
from agent_dispatch.model.next_step import NextStep, StepKind


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "config" / "agents.toml")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    directory = tmp_path / "infra"
    directory.mkdir()
    (directory / "CLAUDE.md").write_text("# Infra\n\nInfrastructure agent.\n")
    (directory / ".mcp.json").write_text('{"mcpServers": {"portainer": {}}}')
    (directory / "pyproject.toml").write_text("")
    (directory / "Dockerfile").write_text("")
    return directory


def _write(registry: Registry, text: str) -> None:
    registry.path.parent.mkdir(exist_ok=True)
    registry.path.write_text(text)


def _row(registry: Registry, name: str) -> dict[str, Any]:
    rows = {row.name: row for row in registry.list_agents()}
    shown: dict[str, Any] = msgspec.to_builtins(rows[name])
    return shown


def test_an_added_agent_describes_itself_and_is_listed(registry: Registry, project: Path) -> None:
    change = add_agent(registry, "infra", str(project))
    assert msgspec.to_builtins(change) == {
        "agent": "infra",
        "action": "added",
        "directory": str(project),
        "description": "Infrastructure agent. MCP: portainer. Stack: Python, Docker",
        "config": str(registry.path),
    }
    assert _row(registry, "infra") == {
        "name": "infra",
        "directory": str(project),
        "description": "Infrastructure agent. MCP: portainer. Stack: Python, Docker",
        "healthy": True,
        "has_claude_md": True,
        "has_mcp_config": True,
        "mcp_servers": ["portainer"],
        "stacks": ["Python", "Docker"],
    }


def test_everything_an_add_may_say_is_in_the_file(registry: Registry, project: Path) -> None:
    add_agent(
        registry,
        "infra",
        str(project),
        description=' Says "things" ',
        timeout=600.0,
        max_budget_usd=1.5,
        model="sonnet",
        permission_mode="plan",
        allowed_tools="Bash(git log:*,git diff:*),Read",
        disallowed_tools="[]",
    )
    assert registry.path.read_text() == (
        "[agents.infra]\n"
        f'directory = "{project}"\n'
        'description = "Says \\"things\\""\n'
        "timeout = 600\n"
        'model = "sonnet"\n'
        "max_budget_usd = 1.5\n"
        'permission_mode = "plan"\n'
        'allowed_tools = ["Bash(git log:*,git diff:*)", "Read"]\n'
        "disallowed_tools = []\n"
    )


def test_a_directory_may_be_relative_or_at_home_or_behind_a_link(
    registry: Registry, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    monkeypatch.setenv("HOME", str(project.parent))
    (project.parent / "link").symlink_to(project)
    given = {"dot": ".", "home": "~/infra", "link": "../link"}
    for name, directory in given.items():
        assert add_agent(registry, name, directory).directory == str(project)


@pytest.mark.parametrize(
    ("directory", "message"),
    [
        ("", "directory is empty"),
        ("  ", "directory is empty"),
        ("/nowhere/at/all", "The directory does not exist: /nowhere/at/all. Give the path of an"),
        ("/dev/null", "Not a directory: /dev/null"),
        ("a\0b", "directory holds a line break, a control character"),
        ("a\nb", "directory holds a line break"),
        ("caf\udce9", "or invalid Unicode"),
        ("~nobody-of-that-name/x", "The directory does not exist"),
        ("/" + "x" * 5000, "The directory cannot be used"),
    ],
)
def test_only_an_existing_directory_can_be_added(
    registry: Registry, directory: str, message: str
) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        add_agent(registry, "a", directory)
    assert not registry.path.exists()


@pytest.mark.parametrize("name", ["", "a b", "-x", "a/b", "../x", "a.b", "é", "x" * 101, "a\n"])
def test_a_name_is_made_of_letters_digits_hyphens_and_underscores(
    registry: Registry, project: Path, name: str
) -> None:
    with pytest.raises(InvalidRequestError, match="cannot name an agent: use letters, digits"):
        add_agent(registry, name, str(project))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"timeout": -1}, "timeout is -1: give a positive number, or 0"),
        ({"timeout": 0.5}, "timeout: expected a number of seconds from 1 to .* got the number 0.5"),
        ({"timeout": float("nan")}, "timeout: .* got the number nan"),
        ({"timeout": float("inf")}, "timeout: .* got the number inf"),
        ({"timeout": 10**400}, "timeout: .* got a huge number"),
        ({"max_budget_usd": -0.5}, "max_budget_usd is -0.5: give a positive number"),
        ({"max_budget_usd": float("nan")}, "max_budget_usd: expected a number of US dollars"),
        ({"description": "a\nb"}, "description holds a line break"),
        ({"description": "x" * 2001}, "description has 2001 characters: at most 2000"),
        ({"model": "--help"}, "model: '--help' starts with '-'"),
        ({"model": "a\0"}, "model holds a line break, a control character"),
        ({"model": "x" * 201}, "model has 201 characters"),
        ({"permission_mode": "-p"}, "permission_mode: '-p' starts with '-'"),
        ({"allowed_tools": "Read,--x"}, "allowed_tools: '--x' starts with '-'"),
        ({"allowed_tools": "Bash(git"}, "allowed_tools: 'Bash.git' has an unmatched parenthesis"),
        ({"allowed_tools": " , "}, r"names no tool. Write \[\] to grant nothing"),
        (
            {"disallowed_tools": "[1]"},
            "disallowed_tools: it starts with '\\[' but is not a JSON array",
        ),
        ({"disallowed_tools": '["a'}, "is not a JSON array of texts"),
        (
            {"disallowed_tools": '["a\\nb"]'},
            "disallowed_tools: expected each tool as text on one line",
        ),
        ({"disallowed_tools": '["-b"]'}, "starts with '-'"),
        ({"allowed_tools": "x," * 20000}, "allowed_tools has 40000 characters"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused_by_name(
    registry: Registry, project: Path, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        add_agent(registry, "a", str(project), **fields)
    assert not registry.path.exists()


def test_a_taken_name_is_refused_with_the_way_to_change_it(
    registry: Registry, project: Path
) -> None:
    add_agent(registry, "infra", str(project))
    _write(registry, registry.path.read_text() + "[agents.broken]\n")
    before = registry.path.read_bytes()
    for name in ("infra", "broken"):
        with pytest.raises(InvalidRequestError, match=f"'{name}' exists already") as caught:
            add_agent(registry, name, str(project))
        update, remove = caught.value.next_steps
        assert (update.kind, update.agent) == (StepKind.UPDATE_AGENT, name)
        assert remove.command == f"agent-dispatch remove {name}"
    assert registry.path.read_bytes() == before


def test_an_unknown_permission_mode_is_passed_on_with_a_warning(
    registry: Registry, project: Path
) -> None:
    change = add_agent(registry, "a", str(project), permission_mode="bypasspermission")
    assert change.warnings is not None
    assert "Did you mean bypassPermissions?" in change.warnings[0]
    assert registry.snapshot().effective("a").permission_mode == "bypasspermission"
    assert update_agent(registry, "a", permission_mode="plan").warnings is None


def test_none_means_no_value_for_a_new_agent(registry: Registry, project: Path) -> None:
    change = add_agent(registry, "a", str(project), description="None", model="none")
    assert change.description == "Infrastructure agent. MCP: portainer. Stack: Python, Docker"
    assert registry.snapshot().effective("a").model is None


def test_an_update_changes_what_is_given_and_nothing_else(
    registry: Registry, project: Path
) -> None:
    _write(
        registry,
        f"# top\n[agents.a] # it\n# where\ndirectory = '{project}' # here\n"
        "model = 'x'\ncustom = 1\n"
        "\n[agents.b]\ndirectory = '/b'\n",
    )
    change = update_agent(
        registry, "a", model="opus", timeout=60, max_budget_usd=0.5, allowed_tools="Read"
    )
    assert change.action == "updated"
    assert sorted(change.changed or []) == ["allowed_tools", "max_budget_usd", "model", "timeout"]
    assert registry.path.read_text() == (
        f"# top\n[agents.a] # it\n# where\ndirectory = '{project}' # here\nmodel = \"opus\"\n"
        'custom = 1\ntimeout = 60\nmax_budget_usd = 0.5\nallowed_tools = ["Read"]\n'
        "\n[agents.b]\ndirectory = '/b'\n"
    )


@pytest.mark.parametrize("none", ["none", "None", " NONE "])
def test_none_and_negative_numbers_clear_a_field(
    registry: Registry, project: Path, none: str
) -> None:
    fields = ("description", "model", "permission_mode", "allowed_tools", "disallowed_tools")
    given: AgentFields = {**dict.fromkeys(fields, "plan"), "timeout": 5, "max_budget_usd": 1}  # type: ignore[typeddict-item]
    add_agent(registry, "a", str(project), **given)
    clearing: AgentFields = {**dict.fromkeys(fields, none), "timeout": -1, "max_budget_usd": -1}  # type: ignore[typeddict-item]
    change = update_agent(registry, "a", **clearing)
    assert set(change.changed or []) == {*fields, "timeout", "max_budget_usd"}
    assert registry.path.read_text() == f'[agents.a]\ndirectory = "{project}"\n'
    assert update_agent(registry, "a", model=none, timeout=-1).action == "unchanged"


def test_an_update_to_the_present_values_changes_nothing(registry: Registry, project: Path) -> None:
    _write(
        registry,
        f"[agents.a]\ndirectory = '{project}'\nallowed_tools = 'Read, Grep'\ntimeout = 5.0\n",
    )
    before = registry.path.stat().st_ino
    for change in (
        update_agent(registry, "a"),
        update_agent(registry, "a", allowed_tools="Read,Grep", timeout=5),
    ):
        assert (change.action, change.changed) == ("unchanged", None)
    assert registry.path.stat().st_ino == before


def test_brackets_grant_nothing_and_none_inherits_again(registry: Registry, project: Path) -> None:
    _write(registry, "[settings]\ndefault_allowed_tools = ['Bash']\n")
    add_agent(registry, "a", str(project), allowed_tools="[]")
    assert registry.snapshot().effective("a").allowed_tools == ()
    assert _row(registry, "a")["allowed_tools"] == []
    update_agent(registry, "a", allowed_tools="none")
    assert registry.snapshot().effective("a").allowed_tools == ("Bash",)
    assert _row(registry, "a")["allowed_tools"] == ["Bash"]
    update_agent(registry, "a", allowed_tools=' ["Read", "Bash(git log:*,git diff:*)"]')
    assert registry.snapshot().effective("a").allowed_tools == (
        "Read",
        "Bash(git log:*,git diff:*)",
    )


def test_a_broken_agent_can_be_repaired_by_an_update(registry: Registry, project: Path) -> None:
    _write(registry, f"[agents.a]\ndirectory = '{project}'\ntimeout = 'soon'\nmodel = 3\n")
    with pytest.raises(UnusableAgentError, match="model: expected text on one line"):
        update_agent(registry, "a", timeout=60)
    assert "'soon'" in registry.path.read_text()
    assert update_agent(registry, "a", timeout=60, model="none").action == "updated"
    assert registry.snapshot().effective("a").timeout_s == 60


def test_an_agent_that_is_not_a_table_can_be_removed_but_not_updated(registry: Registry) -> None:
    _write(registry, "[agents]\na = 5 # what?\n# kept\nb = { directory = '/b' }\n")
    with pytest.raises(UnusableAgentError, match="expected a table with a directory"):
        update_agent(registry, "a", model="x")
    assert remove_agent(registry, "a").action == "removed"
    assert registry.path.read_text() == "[agents]\n# kept\nb = { directory = '/b' }\n"


def test_a_removed_agent_is_gone_and_the_comments_of_others_stay(
    registry: Registry, project: Path
) -> None:
    before = "# all of mine\n\n# about b\n[agents.b]\ndirectory = '/b' # far\n"
    _write(registry, before)
    add_agent(registry, "a", str(project))
    change = remove_agent(registry, "a")
    assert (change.action, change.directory) == ("removed", str(project))
    assert registry.path.read_text() == before


@pytest.mark.parametrize("name", ["a b", "-x", "ä"])
def test_an_agent_with_an_impossible_name_can_be_removed(registry: Registry, name: str) -> None:
    _write(registry, f"[agents.'{name}']\ndirectory = '/x'\n")
    assert not registry.list_agents()[0].healthy
    assert remove_agent(registry, name).action == "removed"
    assert registry.list_agents() == []


def test_an_unknown_agent_is_an_error_that_lists_the_known_ones_and_writes_nothing(
    registry: Registry,
) -> None:
    for call in (
        registry.snapshot().effective,
        registry.inspect_agent,
        partial(update_agent, registry),
        partial(remove_agent, registry),
    ):
        with pytest.raises(UnknownAgentError, match=r"Available: none yet$") as unknown:
            call("foo")
        assert unknown.value.next_steps == (NextStep(kind=StepKind.ADD_AGENT),)
    assert not registry.path.parent.exists()
    _write(registry, "[agents.b]\ndirectory = '/b'\n[agents.a]\n")
    with pytest.raises(UnknownAgentError, match=r"Unknown agent: 'foo'\. Available: a, b$"):
        registry.snapshot().effective("foo")
    with pytest.raises(UnknownAgentError, match=r"Unknown agent: 'x{100}'…\. Available: a, b$"):
        registry.snapshot().effective("x" * 1000)


def test_an_agent_inherits_the_settings_that_its_table_leaves_out(registry: Registry) -> None:
    _write(
        registry,
        """
        [agents.bare]
        directory = "/bare"
        [agents.own]
        directory = "/own"
        description = "d"
        timeout = 5
        model = "own"
        max_budget_usd = 0
        permission_mode = "plan"
        allowed_tools = []
        disallowed_tools = ["X"]
        [settings]
        default_timeout = 900
        default_model = "opus"
        default_max_budget_usd = 2
        default_permission_mode = "auto"
        default_allowed_tools = ["Bash"]
        default_disallowed_tools = "Write"
        """,
    )
    assert registry.snapshot().effective("bare") == EffectiveAgent(
        name="bare",
        directory="/bare",
        description="",
        timeout_s=900,
        model="opus",
        max_budget_usd=2,
        permission_mode="auto",
        allowed_tools=("Bash",),
        disallowed_tools=("Write",),
    )
    assert registry.snapshot().effective("own") == EffectiveAgent(
        name="own",
        directory="/own",
        description="d",
        timeout_s=5,
        model="own",
        max_budget_usd=None,
        permission_mode="plan",
        allowed_tools=(),
        disallowed_tools=("X",),
    )


def test_a_default_of_zero_dollars_means_no_limit(registry: Registry) -> None:
    _write(registry, "settings.default_max_budget_usd = 0\nagents.a.directory = '/a'\n")
    assert registry.snapshot().effective("a").max_budget_usd is None


@pytest.mark.parametrize(
    ("written", "expected"),
    [("~/x", "{home}/x"), ("sub/x", "{base}/sub/x"), ("/abs", "/abs"), ("~", "{home}")],
)
def test_a_directory_in_the_file_is_made_absolute(
    registry: Registry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    written: str,
    expected: str,
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    _write(registry, f"agents.a.directory = '{written}'\n")
    absolute = expected.format(home=tmp_path, base=registry.path.parent)
    assert registry.snapshot().effective("a").directory == absolute
    assert registry.list_agents()[0].directory == absolute


def test_a_broken_agent_is_listed_with_its_reason_and_the_others_work(
    registry: Registry, project: Path
) -> None:
    _write(
        registry,
        f"[agents.z]\ndirectory = 5\n[agents.good]\ndirectory = '{project}'\n"
        f"[agents.a]\ndirectory = '{project}'\ndescription = 'Kept'\ntimeout = 'soon'\n",
    )
    assert [row.name for row in registry.list_agents()] == ["z", "good", "a"]
    assert _row(registry, "good")["healthy"]
    assert _row(registry, "z") == {
        "name": "z",
        "directory": "",
        "description": "",
        "healthy": False,
        "problem": "directory: expected the path of the project, as text, got the number 5",
        "has_claude_md": False,
        "has_mcp_config": False,
    }
    row = _row(registry, "a")
    assert (row["healthy"], row["directory"], row["description"]) == (False, str(project), "Kept")
    assert row["stacks"] == ["Python", "Docker"]
    assert registry.inspect_agent("a").problem == row["problem"]
    assert registry.inspect_agent("a").claude_md_preview == "# Infra\n\nInfrastructure agent."
    with pytest.raises(UnusableAgentError, match="timeout: expected a number of seconds"):
        registry.snapshot().effective("a")
    assert registry.snapshot().effective("good").directory == str(project)


def test_a_missing_directory_is_listed_with_its_problem(registry: Registry) -> None:
    _write(registry, "agents.a.directory = '/nowhere'\n")
    row = _row(registry, "a")
    assert (row["healthy"], row["problem"]) == (False, "the directory does not exist: /nowhere")
    assert registry.snapshot().effective("a").directory == "/nowhere"
    assert registry.inspect_agent("a").claude_md_preview is None


def test_a_broken_setting_keeps_runs_from_starting_and_nothing_else(
    registry: Registry, project: Path
) -> None:
    _write(registry, "settings.default_max_budget_usd = 'five'\n")
    change = add_agent(registry, "a", str(project))
    problem = "settings.default_max_budget_usd: expected a number of US dollars"
    assert change.warnings is not None
    assert problem in change.warnings[0]
    with pytest.raises(ConfigError, match=f"agents.toml: {problem}.*until then no run starts"):
        registry.snapshot().effective("a")
    row = _row(registry, "a")
    assert not row["healthy"]
    assert problem in row["problem"]
    assert registry.inspect_agent("a").timeout == 300
    assert remove_agent(registry, "a").action == "removed"


def test_an_inspection_shows_what_takes_effect_and_the_documents(
    registry: Registry, project: Path
) -> None:
    (project / "README.md").write_text("\n".join(f"line {number}" for number in range(500)))
    _write(
        registry,
        f"[agents.a]\ndirectory = '{project}'\nallowed_tools = []\npermission_mode = 'yolo'\n"
        "[agents.b]\ndirectory = '/b'\npermission_mode = 'other'\n"
        "[settings]\ndefault_timeout = 90\n",
    )
    details = registry.inspect_agent("a", preview_lines=2)
    assert (details.timeout, details.allowed_tools, details.healthy) == (90, [], True)
    assert details.readme_preview == "line 0\nline 1\n…"
    assert details.warnings is not None
    assert [warning.split(":")[0] for warning in details.warnings] == ["agents.a.permission_mode"]
    assert "claude_md_preview" not in msgspec.to_builtins(registry.inspect_agent("a", 0))
    for lines in (-5, 0):
        assert registry.inspect_agent("a", lines).readme_preview is None
    shown = registry.inspect_agent("a", 10**9).readme_preview
    assert shown is not None
    assert shown.splitlines()[199:] == ["line 199", "…"]


def test_every_call_tells_of_a_file_that_does_not_parse(registry: Registry, project: Path) -> None:
    _write(registry, "[agents.a\n")
    calls = (
        registry.load,
        registry.list_agents,
        lambda: registry.snapshot().effective("a"),
        lambda: registry.inspect_agent("a"),
        lambda: add_agent(registry, "b", str(project)),
        lambda: update_agent(registry, "a", model="x"),
        lambda: remove_agent(registry, "a"),
    )
    for call in calls:
        with pytest.raises(ConfigError, match=r"not valid TOML: .*line 1"):
            call()
    assert registry.path.read_text() == "[agents.a\n"


def test_a_change_by_another_process_is_seen_at_the_next_call(
    registry: Registry, project: Path
) -> None:
    add_agent(registry, "a", str(project))
    other = Registry(registry.path)
    update_agent(other, "a", model="x")
    assert registry.snapshot().effective("a").model == "x"
    remove_agent(other, "a")
    with pytest.raises(UnknownAgentError):
        registry.snapshot().effective("a")


def test_a_working_directory_that_is_gone_is_an_error(registry: Registry, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    before = os.open(".", os.O_RDONLY)
    try:
        os.chdir(gone)
        gone.rmdir()
        with pytest.raises(InvalidRequestError, match="cannot be found from here"):
            add_agent(registry, "a", ".")
    finally:
        os.fchdir(before)
        os.close(before)


def test_reading_imports_nothing_that_only_writing_or_runs_need() -> None:
    code = (
        "import sys\n"
        "import agent_dispatch.config.registry\n"
        "late = 'trio anyio mcp cyclopts tomli_w yaml difflib asyncio subprocess'.split()\n"
        "print([name for name in late if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


def test_a_mode_inherited_from_claude_codes_settings_is_shown(tmp_path: Path) -> None:
    settings = tmp_path / "home" / ".claude" / "settings.json"
    settings.parent.mkdir(parents=True)
    settings.write_text('{"permissions": {"defaultMode": "plan"}}')
    environ = {"HOME": str(tmp_path / "home")}
    registry = Registry(tmp_path / "agents.toml", environ=environ)
    (tmp_path / "p").mkdir()
    add_agent(registry, "infra", str(tmp_path / "p"))
    shown = registry.inspect_agent("infra")
    inherited = (shown.inherited_permission_mode, shown.inherited_permission_mode_from)
    assert inherited == ("plan", str(settings))
    update_agent(registry, "infra", permission_mode="manual")
    assert registry.inspect_agent("infra").inherited_permission_mode is None


def test_a_snapshot_answers_from_the_file_as_it_was_read_once(registry: Registry) -> None:
    _write(registry, "agents.a.directory = '/a'\nsettings.default_timeout = 5\n")
    snapshot = registry.snapshot()
    _write(registry, "agents.a.directory = '/a'\nsettings.default_timeout = 60\n")
    assert (snapshot.effective("a").timeout_s, snapshot.settings.default_timeout) == (5, 5)
    assert registry.snapshot().effective("a").timeout_s == 60


def test_every_key_of_the_tables_is_a_field_of_its_struct() -> None:
    assert {*AGENT_KEYS, *REMOTE_KEYS} == set(AgentConfig.__struct_fields__)
    assert set(HOST_KEYS) == set(HostConfig.__struct_fields__)
    assert {*SETTING_KEYS, "cache"} == set(Settings.__struct_fields__)
    assert set(CACHE_KEYS) == set(CacheSettings.__struct_fields__)
    effective = {field.encode_name for field in msgspec.structs.fields(EffectiveAgent)}
    assert {*AgentFields.__annotations__, "directory"} <= set(AGENT_KEYS)
    assert {*AGENT_KEYS, *REMOTE_KEYS, "name"} == effective


OWN_KEYS = """effort = "high"
fallback_model = "haiku"
tools = ["Bash", "Read"]
env_allow = ["AWS_*"]  # for terraform
env_deny = []
instructions = "Be brief."
exclusive = true
nested = false
capabilities = ["sql"]
"""


def test_values_written_by_hand_are_shown_and_survive_edits(
    registry: Registry, project: Path
) -> None:
    _write(registry, f"[agents.a]\ndirectory = {str(project)!r}\n{OWN_KEYS}")
    update_agent(registry, "a", model="opus", effort="max")
    text = registry.path.read_text()
    assert OWN_KEYS.replace('"high"', '"max"') in text
    shown = registry.inspect_agent("a")
    assert (shown.effort, shown.fallback_model, shown.instructions) == ("max", "haiku", "Be brief.")
    assert (shown.tools, shown.env_allow, shown.env_deny) == (["Bash", "Read"], ["AWS_*"], [])
    assert (shown.exclusive, shown.nested) == (True, False)
    assert shown.capabilities == registry.summary("a").capabilities == ["sql"]


def test_keys_that_an_agent_leaves_out_are_not_shown(registry: Registry, project: Path) -> None:
    add_agent(registry, "a", str(project))
    shown = msgspec.to_builtins(registry.inspect_agent("a"))
    assert not {"effort", "tools", "exclusive", "nested", "capabilities"} & shown.keys()
