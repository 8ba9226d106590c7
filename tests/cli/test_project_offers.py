"""`init` and `add` offer the projects that Claude Code knows."""

import json
import tomllib
from pathlib import Path

import pytest

from tests.cli.support import World


@pytest.fixture
def projects(world: World) -> dict[str, Path]:
    """Three projects in Claude Code's configuration, the newest first."""
    world.install_claude()
    found = {name: world.project(name) for name in ("newest", "older", "untimed")}
    entries = {
        str(found["untimed"]): {"hasTrustDialogAccepted": True},
        str(found["older"]): {"lastStartTime": 1_700_000_000_000},
        str(found["newest"]): {
            "lastStartTime": 1_700_000_100_000,
            "hasTrustDialogAccepted": True,
        },
        "/nowhere/at/all": {"lastStartTime": 1_800_000_000_000},
        str(world.home): {},
    }
    world.claude_config.write_text(json.dumps({"projects": entries}))
    return found


def agents(world: World) -> dict[str, str]:
    tables = tomllib.loads(world.config.read_text()).get("agents", {})
    return {name: table["directory"] for name, table in tables.items()}


def test_without_a_terminal_the_projects_are_printed_and_none_is_added(
    world: World, projects: dict[str, Path]
) -> None:
    assert world.run("init") == 0
    shown = [line.split()[:3] for line in world.out.splitlines() if line.startswith("  ")]
    assert shown == [
        [str(number), name, str(projects[name])] for number, name in enumerate(projects, start=1)
    ]
    newest, older, untimed = (line for line in world.out.splitlines() if line.startswith("  "))
    assert "(trusted, used" in newest
    assert "(not trusted, used" in older
    assert untimed.endswith("(trusted)")
    assert "agent-dispatch init --all" in world.out
    assert agents(world) == {}


def test_all_adds_all_without_asking(world: World, projects: dict[str, Path]) -> None:
    assert world.run("init", "--all") == 0
    assert agents(world) == {name: str(path) for name, path in projects.items()}
    assert "Next: agent-dispatch test newest" in world.out
    assert world.run("init", "--all") == 0
    assert "Projects that Claude Code knows" not in world.out


@pytest.mark.parametrize(
    ("answer", "added"),
    [
        ("1\n", ["newest"]),
        ("3, 1\n", ["newest", "untimed"]),
        ("2 3", ["older", "untimed"]),
        ("1,,2\n", ["newest", "older"]),
        ("All\n", ["newest", "older", "untimed"]),
        ("\n", []),
        ("", []),
        ("  \n", []),
    ],
)
def test_on_a_terminal_a_person_chooses_once(
    world: World, projects: dict[str, Path], answer: str, added: list[str]
) -> None:
    world.terminal, world.stdin = True, answer
    assert world.run("init") == 0
    assert list(agents(world)) == added
    assert world.err.count("Numbers, all, or Enter for none") == 1


@pytest.mark.parametrize("answer", ["4\n", "0\n", "1 x\n", "-1\n", "1-2\n", "all 1\n", "1.\n"])
def test_an_answer_that_names_no_project_adds_none(
    world: World, projects: dict[str, Path], answer: str
) -> None:
    world.terminal, world.stdin = True, answer
    assert world.run("init") == 2
    assert "is not a number from 1 to 3" in world.err
    assert agents(world) == {}


def test_with_json_nothing_is_asked(world: World, projects: dict[str, Path]) -> None:
    world.terminal = True
    assert world.run("init", "--json") == 0
    offered = world.answer()["known_projects"]
    assert [project["name"] for project in offered] == list(projects)
    assert offered[0] == {
        "name": "newest",
        "directory": str(projects["newest"]),
        "trusted": True,
        "last_start": 1_700_000_100.0,
    }
    assert world.run("init", "--json", "--all") == 0
    assert world.answer()["agents_added"] == list(projects)
    assert "known_projects" not in world.answer()


def test_the_configuration_directory_of_claude_code_counts(
    world: World, projects: dict[str, Path]
) -> None:
    place = world.home / "claude"
    place.mkdir()
    entries: dict[str, object] = {str(projects["older"]): {}}
    (place / ".claude.json").write_text(json.dumps({"projects": entries}))
    world.environ["CLAUDE_CONFIG_DIR"] = str(place)
    assert world.run("add") == 2
    assert str(projects["older"]) in world.err
    assert str(projects["newest"]) not in world.err


@pytest.mark.parametrize("argv", [("add",), ("add", "infra")])
def test_add_without_a_directory_lists_the_projects_and_adds_none(
    world: World, projects: dict[str, Path], argv: tuple[str, ...]
) -> None:
    assert world.run(*argv) == 2
    assert world.out == ""
    listed = [line.split()[:2] for line in world.err.splitlines() if line.startswith("  ")]
    assert listed == [[name, str(path)] for name, path in projects.items()]
    assert world.err.splitlines()[-3:] == [
        "error: `add` needs a name and a directory.",
        f"tip: agent-dispatch add newest {projects['newest']}",
        "tip: agent-dispatch add --help",
    ]
    assert not world.config.exists()


def test_add_without_anything_to_offer_is_an_error_all_the_same(world: World) -> None:
    assert world.run("add", "infra") == 2
    assert "needs a name and a directory" in world.err


def test_add_says_that_the_file_of_claude_code_is_broken(world: World) -> None:
    world.claude_config.write_text("{")
    assert world.run("add") == 2
    assert "is not a JSON object" in world.err
    assert "needs a name and a directory" in world.err.splitlines()[-2]


def test_a_broken_file_of_claude_code_stops_no_init(world: World) -> None:
    world.install_claude()
    world.claude_config.write_text("{")
    assert world.run("init") == 1
    assert world.err.count("is not a JSON object") == 1
    assert world.config.exists()
