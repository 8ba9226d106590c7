import os
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from agent_dispatch.config.registry import Registry
from agent_dispatch.config.yaml_import import (
    ImportReport,
    Unimported,
    find_unimported,
    import_yaml,
)
from agent_dispatch.errors import ConfigError, InvalidRequestError
from agent_dispatch.model.config import GroupConfig, GroupMember

AGENTS_YAML = """\
agents:
  infra:
    directory: ~/projects/infra
    description: "Infrastructure agent. MCP: portainer."
    timeout: 300 # seconds, default: 300
    # model: sonnet # optional model override
    # max_budget_usd: 1.0 # cost limit per dispatch
    allowed_tools: # restrict which tools the agent can use
    - Read
    - Grep
settings:
  default_timeout: 300
  # default_permission_mode: bypassPermissions # inherited by all agents
  max_dispatch_depth: 3 # recursion protection
  max_concurrency: 5
  cache:
    enabled: true
    ttl: 300 # seconds
    max_size: 1000
"""


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "new" / "agents.toml")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "agents.yaml"


def _import(
    source: Path, registry: Registry, text: str, *, overwrite: bool = False
) -> ImportReport:
    source.write_text(text)
    return import_yaml(source, registry, overwrite=overwrite)


def test_an_old_configuration_is_taken_over_whole(registry: Registry, source: Path) -> None:
    report = _import(source, registry, AGENTS_YAML)
    assert report.added == ["infra"]
    assert report.settings == [
        "settings.default_timeout",
        "settings.max_dispatch_depth",
        "settings.max_concurrency",
        "settings.cache.enabled",
        "settings.cache.ttl",
        "settings.cache.max_size",
    ]
    assert (report.skipped, report.failed) == ({}, {})
    assert registry.path.read_text() == (
        "[agents.infra]\n"
        'directory = "~/projects/infra"\n'
        'description = "Infrastructure agent. MCP: portainer."\n'
        "timeout = 300\n"
        'allowed_tools = ["Read", "Grep"]\n'
        "\n"
        "[settings]\n"
        "default_timeout = 300\n"
        "max_dispatch_depth = 3\n"
        "max_concurrency = 5\n"
        "\n"
        "[settings.cache]\n"
        "enabled = true\n"
        "ttl = 300\n"
        "max_size = 1000\n"
    )
    assert source.read_text() == AGENTS_YAML


def test_importing_twice_changes_nothing_the_second_time(registry: Registry, source: Path) -> None:
    _import(source, registry, AGENTS_YAML)
    before = registry.path.stat().st_ino
    report = _import(source, registry, AGENTS_YAML)
    assert report.added == report.settings == []
    assert report.skipped["infra"].startswith("exists already")
    assert report.skipped["settings.cache.ttl"] == "is set already"
    assert registry.path.stat().st_ino == before


def test_existing_agents_and_settings_stay_without_overwrite(
    registry: Registry, source: Path
) -> None:
    registry.path.parent.mkdir()
    mine = "# mine\n[settings]\nmax_concurrency = 9 # mine\n\n[agents.infra]\ndirectory = '/mine'\n"
    registry.path.write_text(mine)
    _import(source, registry, AGENTS_YAML)
    assert registry.snapshot().effective("infra").directory == "/mine"
    assert registry.load().settings.max_concurrency == 9
    report = _import(source, registry, AGENTS_YAML, overwrite=True)
    assert (report.added, report.replaced) == ([], ["infra"])
    assert registry.load().agents["infra"].directory == "~/projects/infra"
    assert registry.load().settings.max_concurrency == 9
    assert registry.path.read_text().startswith("# mine\n[settings]\nmax_concurrency = 9 # mine\n")


def test_bad_entries_are_reported_and_good_ones_land(registry: Registry, source: Path) -> None:
    report = _import(
        source,
        registry,
        """
        agents:
          good: {directory: /good, model: null}
          5: {directory: /five}
          "no": {directory: /no}
          yes: {directory: /yes}
          a b: {directory: /a}
          nothing:
          text: hello
          number: {directory: 5}
          timeout: {directory: /t, timeout: .inf}
          lone: {directory: /l, description: "\\ud800"}
        settings:
          max_concurrency: many
          default_timeout: 60
          cache: 5
        """,
    )
    assert report.added == ["good", "5", "no"]
    assert list(registry.load().agents) == ["good", "5", "no"]
    assert report.settings == ["settings.default_timeout"]
    assert {key: reason.split(",")[0] for key, reason in report.failed.items()} == {
        "True": "YAML does not read this name as text: quote it",
        "a b": "its name is not made of letters",
        "nothing": "expected a mapping with a directory",
        "text": "expected a mapping with a directory",
        "number": "directory: expected the path of the project",
        "timeout": "timeout: expected a number of seconds from 1 to 1000000000",
        "lone": "description: expected text of valid Unicode",
        "settings.max_concurrency": "expected a whole number",
        "settings.cache": "expected a mapping",
    }


def test_doubtful_entries_land_with_a_warning(registry: Registry, source: Path) -> None:
    report = _import(
        source,
        registry,
        """
        agents:
          a: {directory: /nowhere, permission_mode: yolo, alowed_tools: [Read], 7: x}
        settings: {cache: {tll: 5}, max_parallel: 5}
        """,
    )
    assert [warning.partition(": ")[0] for warning in report.warnings] == [
        "agents.a",
        "agents.a.permission_mode",
    ]
    assert list(report.left_out) == [
        "agents.a.alowed_tools",
        "agents.a.7",
        "settings.max_parallel",
        "settings.cache.tll",
    ]
    assert "Did you mean allowed_tools?" in report.left_out["agents.a.alowed_tools"]
    assert "Did you mean ttl?" in report.left_out["settings.cache.tll"]


def test_a_relative_directory_starts_where_the_yaml_file_is(
    registry: Registry, source: Path, tmp_path: Path
) -> None:
    (tmp_path / "sub").mkdir()
    report = _import(source, registry, "agents: {a: {directory: sub}}")
    assert report.warnings == []
    assert registry.snapshot().effective("a").directory == str(tmp_path / "sub")


@pytest.mark.parametrize(
    "text", ["", "agents:\nsettings:\n", "# only this\n", "settings: {cache: }"]
)
def test_an_empty_file_imports_nothing(registry: Registry, source: Path, text: str) -> None:
    report = _import(source, registry, text)
    assert (report.added, report.settings, report.failed) == ([], [], {})
    assert not registry.path.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"agents: [", r"is not valid YAML: (?s:.*)line 1, column 10"),
        (b"agents: !!python/object:os.system {}", "could not determine a constructor"),
        (b"a: \xff", "is not valid YAML"),
        (b"a: " + b"[" * 5000, "is not valid YAML: it is nested too deeply"),
        (b"--- 1\n--- 2\n", "is not valid YAML"),
        (b"- a\n- b\n", "is not an agents.yaml: expected a mapping"),
        (b"agents: 5", "agents is not a mapping of names to agents"),
        (b"# " + b"x" * (300 * 1024), "larger than 256 KiB"),
    ],
)
def test_a_source_that_cannot_be_used_is_an_error(
    registry: Registry, source: Path, content: bytes, message: str
) -> None:
    source.write_bytes(content)
    with pytest.raises(InvalidRequestError, match=message):
        import_yaml(source, registry)
    assert not registry.path.parent.exists()


def test_a_source_that_is_not_a_file_is_an_error(
    registry: Registry, source: Path, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path, reason in (
        (source, "No such file or directory"),
        (tmp_path, "Is a directory"),
        (tmp_path / "fifo", "it is not a regular file"),
    ):
        with pytest.raises(InvalidRequestError, match=f"{path} cannot be read: {reason}"):
            import_yaml(path, registry)


def test_aliases_that_multiply_are_not_followed(registry: Registry, source: Path) -> None:
    levels = "".join(f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 9)}]\n" for n in range(1, 30))
    report = _import(
        source, registry, f"x0: &x0 [lol]\n{levels}agents: {{a: {{directory: *x29}}}}\n"
    )
    assert list(report.failed) == ["a"]


@pytest.mark.parametrize("content", ["[agents", "settings = 5\n", "[settings]\ncache = 5\n"])
def test_a_broken_target_is_an_error_and_stays_as_it_is(
    registry: Registry, source: Path, content: str
) -> None:
    registry.path.parent.mkdir()
    registry.path.write_text(content)
    if content == "[agents":
        with pytest.raises(ConfigError, match="not valid TOML"):
            _import(source, registry, AGENTS_YAML)
    else:
        failed = _import(source, registry, AGENTS_YAML).failed
        assert "in agents.toml is not a table" in failed["settings.cache"]
    assert registry.path.read_text().startswith(content)


PREDECESSOR = """\
agents:
  infra:
    directory: INFRA
    description: ''
    timeout: 0
    allowed_tools:
    - Bash(git log:*)
    - Read
    capabilities:
    - docker_logs
    risky_capabilities:
    - restart_services
    instructions: 'Read-only.

      Never restart.'
  backend:
    directory: /srv/backend
    description: The backend
    timeout: 300
    max_budget_usd: 1.5
    model: sonnet
    permission_mode: plan
    disallowed_tools:
    - Write
groups:
  shop:
    description: Ask infra
    shared_context: Stack shop-prod
    members:
    - agent: infra
      use_for: logs
    - agent: backend
      use_for: ''
      weight: 3
  empty:
    description: ''
    shared_context: ''
settings:
  default_timeout: 300
  default_allowed_tools: []
  default_disallowed_tools: []
  max_dispatch_depth: 3
  max_concurrency: 5
  cache:
    enabled: true
    ttl: 300
    max_size: 1000
  job_retention_days: 30
  dispatch_protocol: true
  usage_log: true
version: 1
"""
"""As agent-dispatch 0.16 of the package index writes it, and two keys that nobody knows."""


def _paths(data: object, path: str = "") -> Iterator[str]:
    """Name every value of a document: the keys of its mappings, joined by dots."""
    if isinstance(data, dict):
        for key, value in data.items():
            yield from _paths(value, f"{path}.{key}" if path else key)
    elif isinstance(data, list) and data and isinstance(data[0], dict):
        for place, value in enumerate(data):
            yield from _paths(value, f"{path}.{place}")
    else:
        yield path


def test_every_key_of_the_predecessor_is_imported_or_named_as_left_out(
    registry: Registry, source: Path, tmp_path: Path
) -> None:
    infra = tmp_path / "infra"
    infra.mkdir()
    (infra / "CLAUDE.md").write_text("# Infra\n\nRuns the containers of the shop.\n")
    report = _import(source, registry, PREDECESSOR.replace("INFRA", str(infra)))
    assert (report.added, report.groups) == (["infra", "backend"], ["shop", "empty"])
    assert (report.failed, report.skipped) == ({}, {})
    imported = set(_paths(tomllib.loads(registry.path.read_text())))
    left_out = set(report.left_out)
    without_meaning = {
        "agents.infra.timeout",  # 0 inherits
        "groups.shop.members.1.use_for",  # empty
        "groups.empty.description",
        "groups.empty.shared_context",
    }
    for path in _paths(yaml.safe_load(PREDECESSOR)):
        assert (path in imported) + (path in left_out) + (path in without_meaning) == 1, path
    assert {
        "agents.infra.risky_capabilities",
        "groups.shop.members.1.weight",
        "settings.job_retention_days",
        "settings.dispatch_protocol",
        "settings.usage_log",
        "version",
    } <= left_out
    # These are no typing errors, so none is answered with another key.
    assert "Did you mean" not in " ".join(report.left_out.values())
    config = registry.load()
    assert config.groups["shop"].members == [
        GroupMember(agent="infra", use_for="logs"),
        GroupMember(agent="backend"),
    ]
    assert config.agents["infra"].timeout is None
    assert config.agents["infra"].description == "Runs the containers of the shop."
    assert (config.broken, config.broken_groups, config.unknown_keys) == ({}, {}, ())


def test_a_group_that_exists_is_skipped_or_replaced(registry: Registry, source: Path) -> None:
    text = "groups: {shop: {members: [{agent: a}]}, bad: {members: 3}, 'a b': {}, none: }"
    registry.path.parent.mkdir()
    registry.path.write_text('[groups.shop]\ndescription = "mine"\n')
    report = _import(source, registry, text)
    assert report.skipped["groups.shop"].startswith("exists already")
    assert list(report.failed) == ["groups.bad", "groups.a b", "groups.none"]
    report = _import(source, registry, text, overwrite=True)
    assert report.groups == ["shop"]
    assert registry.load().groups["shop"] == GroupConfig(members=[GroupMember(agent="a")])


def test_agents_beside_our_file_are_found_until_all_are_imported(registry: Registry) -> None:
    registry.path.parent.mkdir()
    source = registry.path.with_name("agents.yaml")
    assert find_unimported(registry) is None
    source.write_text("agents: {a: {directory: /a}, b: {directory: /b}}")
    registry.path.write_text('[agents.a]\ndirectory = "/a"\n')
    assert find_unimported(registry) == Unimported(source, ("b",))
    import_yaml(source, registry)
    assert find_unimported(registry) is None
    source.write_text("agents: [")
    found = find_unimported(registry)
    assert found is not None
    assert found.problem is not None
    assert "is not valid YAML" in found.problem
    source.write_text("settings: {}")
    assert find_unimported(registry) is None
