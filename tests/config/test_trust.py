import json
import os
from pathlib import Path

import pytest

from agent_dispatch.config.project.claude_settings import Workspace, workspace_of

RULES = json.dumps({"permissions": {"allow": ["Bash(touch *)", "Read"]}})


@pytest.fixture
def project(tmp_path: Path) -> Path:
    directory = tmp_path / "parent" / "project"
    (directory / ".claude").mkdir(parents=True)
    (directory / ".claude" / "settings.json").write_text(RULES)
    return directory


def trusting(*directories: Path) -> dict[str, object]:
    return {"projects": {str(each): {"hasTrustDialogAccepted": True} for each in directories}}


def test_rules_of_an_untrusted_directory_are_counted(project: Path) -> None:
    assert workspace_of(str(project), {}) == Workspace(str(project), False, 2)
    assert workspace_of(str(project), trusting(project)) == Workspace(str(project), True, 2)


def test_the_trust_of_a_parent_does_not_count(project: Path) -> None:
    assert not workspace_of(str(project), trusting(project.parent)).trusted


def test_in_a_repository_the_trust_of_its_root_counts(project: Path) -> None:
    (project.parent / ".git").mkdir()
    assert workspace_of(str(project), trusting(project.parent)) == Workspace(
        str(project.parent), True, 2
    )
    assert not workspace_of(str(project), trusting(project)).trusted


def test_in_a_linked_working_tree_the_trust_of_the_main_one_counts(
    project: Path, tmp_path: Path
) -> None:
    main = tmp_path / "main"
    (main / ".git" / "worktrees" / "linked").mkdir(parents=True)
    (project / ".git").write_text(f"gitdir: {main}/.git/worktrees/linked\n")
    assert workspace_of(str(project), trusting(main)).trusted


def test_a_submodule_is_its_own_root(project: Path) -> None:
    (project / ".git").write_text("gitdir: ../.git/modules/project\n")
    assert workspace_of(str(project), {}).root == str(project)


def test_symbolic_links_are_resolved(project: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    os.symlink(project, link)
    assert workspace_of(str(link), trusting(project)).trusted


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "\udcff", '{"permissions": null}', '{"permissions": {"allow": "all"}}', "{}"],
)
def test_settings_without_rules_need_no_trust(project: Path, text: str) -> None:
    (project / ".claude" / "settings.json").write_text(text, errors="surrogateescape")
    assert workspace_of(str(project), {}).allow_rules == 0


@pytest.mark.parametrize(
    "config",
    [
        {"projects": None},
        {"projects": []},
        {"projects": {"PROJECT": None}},
        {"projects": {"PROJECT": {"hasTrustDialogAccepted": "yes"}}},
    ],
)
def test_a_strange_configuration_trusts_nothing(project: Path, config: dict[str, object]) -> None:
    text = json.dumps(config).replace("PROJECT", str(project))
    assert not workspace_of(str(project), json.loads(text)).trusted
