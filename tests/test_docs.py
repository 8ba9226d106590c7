"""What the docs say of tools, settings, commands and errors is what the code has."""

import inspect
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

import agent_dispatch
from agent_dispatch.cli.command_table import ALIASES, COMMANDS
from agent_dispatch.cli.help_pages import ENVIRONMENT
from agent_dispatch.config.clients.table import variables_to_pass
from agent_dispatch.model.config import PERMISSION_MODES, AgentConfig, CacheSettings, Settings
from agent_dispatch.model.dispatch import DispatchResult, ErrorType
from agent_dispatch.model.parallel import DispatchItem
from agent_dispatch.server.tools.catalogue import TOOLS
from agent_dispatch.server.tools.tool import Tool

ROOT = Path(agent_dispatch.__file__).parent
DOCS = ROOT.parent / "docs"
PAGES = [ROOT.parent / "README.md", *sorted(DOCS.glob("*.md")), ROOT.parent / "SECURITY.md"]
NAMES = re.compile(r"`([a-z_]+)`")
OTHER_HEADINGS = {"Which tool to use", "Jobs", "Large answers", "Error recovery"}
"""Headings of docs/tools.md that are not names of tools."""


def section(page: str, heading: str) -> str:
    """The text below a heading of a page of `docs`, up to the next one of its level or above."""
    level = heading.count("#")
    lines: list[str] = []
    inside = in_code = False
    for line in (DOCS / page).read_text(encoding="utf-8").splitlines():
        in_code ^= line.startswith("```")
        is_heading = not in_code and re.match(r"#+ ", line)
        if is_heading and inside and len(is_heading[0]) <= level + 1:
            break
        if inside:
            lines.append(line)
        inside = inside or line == heading
    assert lines, f"no heading {heading!r} in {page}"
    return "\n".join(lines)


def rows(text: str, header: str) -> list[list[str]]:
    """The cells of the table whose first column has that header."""
    lines = iter(text.splitlines())
    for line in lines:
        if line.startswith(f"| {header} |"):
            next(lines)
            break
    found = []
    for line in lines:
        if not line.startswith("|"):
            break
        # A bar inside a cell is written as \|.
        found.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return found


def tool_headings() -> Mapping[str, str]:
    """The heading under which each tool is described."""
    headings: dict[str, str] = {}
    for line in section("tools.md", "# MCP tools").splitlines():
        if line.startswith("## "):
            for name in line.removeprefix("## ").split(", "):
                headings[name] = line
    return headings


def described_parameters(heading: str) -> Iterator[tuple[str, list[str]]]:
    for row in rows(section("tools.md", heading), "parameter"):
        for name in NAMES.findall(row[0]):
            yield name, row


def test_every_tool_is_described_and_no_other() -> None:
    assert set(tool_headings()) - OTHER_HEADINGS == {tool.name for tool in TOOLS}


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
def test_every_parameter_of_a_tool_is_described_with_its_default(tool: Tool[Any]) -> None:
    heading = tool_headings()[tool.name]
    others = [one for one in TOOLS if tool_headings()[one.name] == heading]
    fields = {field.name: field for one in others for field in msgspec.structs.fields(one.params)}
    described = dict(described_parameters(heading))
    assert set(described) == set(fields)
    if len(others) > 1:
        return  # One table for several: each column says what empty means there.
    for name, field in fields.items():
        said = described[name][2]
        if field.required:
            assert said == "required", name
        elif field.default in ("", None):
            assert said == "", name
        else:
            assert said == msgspec.json.encode(field.default).decode(), name


def test_an_item_of_dispatches_is_described_with_every_key() -> None:
    row = dict(described_parameters("## dispatch_parallel"))["dispatches"]
    assert set(NAMES.findall(row[3])) - {"dispatch"} == {
        field.name for field in msgspec.structs.fields(DispatchItem)
    }


def test_every_field_of_a_result_is_described() -> None:
    described = [
        name
        for row in rows(section("tools.md", "## dispatch"), "field")
        for name in NAMES.findall(row[0])
    ]
    assert set(described) == set({*DispatchResult.__struct_fields__} - {"next_steps"})


def test_every_error_type_has_a_recovery() -> None:
    described = [
        row[0].strip("`") for row in rows(section("tools.md", "## Error recovery"), "`error_type`")
    ]
    assert sorted(described) == sorted(ErrorType)


def test_every_tool_to_use_exists() -> None:
    named = {
        name
        for row in rows(section("tools.md", "## Which tool to use"), "you want")
        for name in NAMES.findall(row[1])
    }
    parameters = {field for tool in TOOLS for field in tool.params.__struct_fields__}
    assert named - parameters < {tool.name for tool in TOOLS}


def toml_example() -> dict[str, Any]:
    (example,) = re.findall(r"```toml\n(.*?)```", section("settings.md", "# Settings"), re.DOTALL)
    # What is commented out is a setting too.
    return tomllib.loads(re.sub(r"^# (\w+ = |\[)", r"\1", example, flags=re.MULTILINE))


def test_every_setting_is_in_the_example_with_its_default() -> None:
    example = toml_example()
    agent, settings = example["agents"]["infra"], example["settings"]
    # Those of an agent on another host are on a page of their own.
    assert set(agent) == set(AgentConfig.__struct_fields__) - {"host", "agent"}
    cache = settings.pop("cache")
    assert msgspec.convert(cache, CacheSettings) == CacheSettings()
    assert set(cache) == set(CacheSettings.__struct_fields__)
    assert set(settings) == set(Settings.__struct_fields__) - {"cache"}
    for name, default in msgspec.structs.asdict(Settings()).items():
        if default is not None and name != "cache":
            assert settings[name] == default, name


def test_every_permission_mode_is_named() -> None:
    (modes,) = re.findall(
        r"permission_mode = \"plan\" +# (\w+(?: \| \w+)+)", section("settings.md", "# Settings")
    )
    assert set(modes.split(" | ")) == set(PERMISSION_MODES)


def test_every_environment_variable_is_described() -> None:
    sources = "\n".join(path.read_text(encoding="utf-8") for path in ROOT.rglob("*.py"))
    table = rows(section("settings.md", "## Environment"), "environment variable")
    described = {row[0].strip("`") for row in table}
    ours = set(re.findall(r'"(AGENT_DISPATCH_[A-Z_]+)"', sources))
    assert described == ours | {"NO_COLOR"}
    for people in (row[0].strip("`") for row in table if not row[1].startswith("set for agents")):
        assert people in ENVIRONMENT


def test_no_client_is_told_of_a_variable_that_belongs_to_one_run() -> None:
    of_runs = [
        row[0].strip("`")
        for row in rows(section("settings.md", "## Environment"), "environment variable")
        if row[1].startswith("set for agents")
    ]
    assert len(of_runs) > 2
    assert variables_to_pass(dict.fromkeys(of_runs, "x")) == []


def command_rows() -> dict[str, list[str]]:
    """What is said of each command; one with actions has a row for each."""
    said: dict[str, list[str]] = {}
    for row in rows(section("commands.md", "# Commands"), "command"):
        said.setdefault(row[0].strip("`").split()[1], []).extend(row)
    return said


def test_every_command_is_described() -> None:
    assert set(command_rows()) == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_a_command_is_described(name: str) -> None:
    command = COMMANDS[name].function()
    options = {
        "--" + parameter.name.rstrip("_").replace("_", "-")
        for parameter in inspect.signature(command).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.name not in ("shell", "json")
    }
    said = " ".join(command_rows()[name])
    if "the same options" in said:
        said += " ".join(command_rows()["add"])
    assert set(re.findall(r"--[a-z-]+", said)) == options


def test_every_exit_status_is_described() -> None:
    said = section("commands.md", "# Commands")
    for status in (
        "0 done",
        "1 failed",
        "2 the command line",
        "3 the job",
        "124 timeout",
        "130/143",
    ):
        assert status in said


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_between_the_pages_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]*)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_readme_is_short_and_shows_the_demo_and_the_tests_early() -> None:
    lines = (ROOT.parent / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 240
    first_screens = "\n".join(lines[:60])
    assert "agent-dispatch demo" in first_screens
    assert "pytest" in first_screens


def test_every_alias_is_described() -> None:
    (line,) = re.findall(r"\*\*Aliases\.\*\* (.*)", (DOCS / "commands.md").read_text())
    assert dict(re.findall(r"`(\w+)` = `(\w+)`", line)) == dict(ALIASES)


def test_the_way_of_a_call_names_functions_that_exist() -> None:
    way = section("design.md", "### A call, function by function")
    steps = [row for part in way.split("\nBack,") for row in rows(part, "Module")]
    named = [
        (row[0].strip("`"), name.rpartition(".")[2])
        for row in steps
        for name in re.findall(r"`([\w.]+)`", row[1])
    ]
    missing = [
        (module, name)
        for module, name in named
        if f"def {name}(" not in (ROOT / module).read_text(encoding="utf-8")
    ]
    assert (missing, len(named) > 40) == ([], True)
