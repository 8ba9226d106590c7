import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent_dispatch.config.registry import Registry
from agent_dispatch.config.yaml_import import ImportReport, import_yaml
from agent_dispatch.errors import ConfigError, InvalidRequestError

pytest.importorskip("yaml", reason="PyYAML is an extra")

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


def test_what_is_there_already_wins_unless_overwritten(registry: Registry, source: Path) -> None:
    registry.path.parent.mkdir()
    mine = "# mine\n[settings]\nmax_concurrency = 9 # mine\n\n[agents.infra]\ndirectory = '/mine'\n"
    registry.path.write_text(mine)
    _import(source, registry, AGENTS_YAML)
    assert registry.effective("infra").directory == "/mine"
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
        "agents.a.alowed_tools",
        "agents.a.7",
        "agents.a",
        "agents.a.permission_mode",
        "settings.max_parallel",
        "settings.cache.tll",
    ]
    assert "unknown key, ignored; did you mean allowed_tools?" in report.warnings[0]
    assert "did you mean ttl?" in report.warnings[5]


def test_a_relative_directory_starts_where_the_yaml_file_is(
    registry: Registry, source: Path, tmp_path: Path
) -> None:
    (tmp_path / "sub").mkdir()
    report = _import(source, registry, "agents: {a: {directory: sub}}")
    assert report.warnings == []
    assert registry.effective("a").directory == str(tmp_path / "sub")


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
def test_a_source_that_cannot_be_used_is_told(
    registry: Registry, source: Path, content: bytes, message: str
) -> None:
    source.write_bytes(content)
    with pytest.raises(InvalidRequestError, match=message):
        import_yaml(source, registry)
    assert not registry.path.parent.exists()


def test_a_source_that_is_no_file_is_told(registry: Registry, source: Path, tmp_path: Path) -> None:
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
def test_a_broken_target_is_told_and_left_alone(
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


def test_without_pyyaml_the_command_that_installs_it_is_told(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "sys.modules['yaml'] = None\n"
        "from pathlib import Path\n"
        "from agent_dispatch.errors import InvalidRequestError\n"
        "from agent_dispatch.config.registry import Registry\n"
        "from agent_dispatch.config.yaml_import import import_yaml\n"
        "try:\n"
        "    import_yaml(Path('x.yaml'), Registry(Path(sys.argv[1])))\n"
        "except InvalidRequestError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "agents.toml")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "pip install 'agent-dispatch[yaml]'" in done.stdout
