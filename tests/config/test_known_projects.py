"""Which projects of Claude Code are offered as agents, in which order, by which names."""

from pathlib import Path
from typing import Any

import pytest

from agent_dispatch.config.project.known_projects import KnownProject, free_name, known_projects
from agent_dispatch.config.values import is_agent_name


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name in ("old", "new", "never", "agent"):
        (tmp_path / "work" / name).mkdir(parents=True)
    return tmp_path


def _known(home: Path, projects: Any, **changes: Any) -> list[KnownProject]:
    arguments = {"taken": (), "registered": (), "home": str(home)} | changes
    return known_projects({"projects": projects}, **arguments)


def test_the_last_used_come_first_and_those_without_a_time_last(home: Path) -> None:
    work = home / "work"
    found = _known(
        home,
        {
            str(work / "never"): {"hasTrustDialogAccepted": True},
            str(work / "old"): {"lastStartTime": 1_700_000_000_000},
            str(work / "new"): {"lastStartTime": 1_800_000_000_000, "hasTrustDialogAccepted": True},
        },
    )
    assert found == [
        KnownProject(
            name="new", directory=str(work / "new"), trusted=True, last_start=1_800_000_000
        ),
        KnownProject(
            name="old", directory=str(work / "old"), trusted=False, last_start=1_700_000_000
        ),
        KnownProject(name="never", directory=str(work / "never"), trusted=True),
    ]


def test_missing_directories_agents_home_and_root_are_left_out(home: Path) -> None:
    work = home / "work"
    (home / "file").write_text("")
    (home / "link").symlink_to(work / "agent")
    (home / "two\nlines").mkdir()
    paths = [
        home / "two\nlines",
        home,
        "/",
        work / "gone",
        home / "file",
        home / "link",
        work / "agent",
        "work/old",
    ]
    projects: dict[str, object] = {str(path): {} for path in [*paths, work / "new"]}
    found = _known(home, projects, registered=[str(work / "agent")])
    assert [project.directory for project in found] == [str(work / "new")]


def test_one_directory_is_offered_once_however_it_is_written(home: Path) -> None:
    (home / "link").symlink_to(home / "work" / "new")
    found = _known(home, {str(home / "link"): {}, str(home / "work" / "new") + "/": {}})
    assert [project.directory for project in found] == [str(home / "work" / "new")]


@pytest.mark.parametrize("projects", [None, [], "x", {"/": 3}, {"": {}}, {"nul\0": {}}])
def test_a_configuration_without_a_table_of_projects_offers_nothing(
    home: Path, projects: Any
) -> None:
    assert _known(home, projects) == []


@pytest.mark.parametrize("time", [True, "1", None, [], float("nan"), float("inf"), 10**400])
def test_a_time_that_is_not_a_number_counts_as_missing(home: Path, time: Any) -> None:
    work = home / "work"
    found = _known(
        home,
        {
            str(work / "old"): {"lastStartTime": time, "hasTrustDialogAccepted": "yes"},
            str(work / "new"): {"lastStartTime": 1},
        },
    )
    assert [project.name for project in found] == ["new", "old"]
    assert found[1] == KnownProject(name="old", directory=str(work / "old"), trusted=False)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("infra", "infra"),
        ("my_app-2", "my_app-2"),
        ("a--b", "a--b"),
        ("my.app", "my-app"),
        (".dotfiles", "dotfiles"),
        ("My Project (old)", "My-Project-old"),
        ("café", "cafe"),
        ("проект", "project"),
        ("-x", "x"),
        ("", "project"),
        ("x" * 300, "x" * 90),
    ],
)
def test_a_name_is_made_of_the_directorys(text: str, name: str) -> None:
    assert free_name(text, ()) == name
    assert is_agent_name(free_name(text, {name}))


def test_a_name_that_is_taken_gets_a_number(home: Path) -> None:
    paths = []
    for parent in ("a", "b", "c"):
        (home / parent / "api").mkdir(parents=True)
        paths.append(str(home / parent / "api"))
    found = _known(home, {path: {} for path in paths}, taken=["api", "api-3"])
    assert [project.name for project in found] == ["api-2", "api-4", "api-5"]
