"""What Claude Code's own settings files say of a directory, and whether it is trusted."""

import json
import os
from pathlib import Path

import pytest

from agent_dispatch.config.project.claude_settings import (
    Workspace,
    read_claude_settings,
    workspace_of,
)
from agent_dispatch.model.claude_settings import ClaudeSettings, Hook


class Files:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.environ = {"HOME": str(root / "home")}
        (root / "p").mkdir()

    def write(self, where: str, content: object) -> str:
        path = self.root / where
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return str(path)

    def read(self, **environ: str) -> ClaudeSettings:
        managed = str(self.root / "managed")
        return read_claude_settings(str(self.root / "p"), self.environ | environ, managed)


USER, LOCAL = "home/.claude/settings.json", "p/.claude/settings.local.json"
PROJECT, MANAGED = "p/.claude/settings.json", "managed/managed-settings.json"


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_the_nearest_file_decides_on_the_mode(files: Files) -> None:
    assert files.read().default_mode() is None
    for where, mode in ((USER, "plan"), (PROJECT, "auto"), (LOCAL, "dontAsk"), (MANAGED, "manual")):
        path = files.write(where, {"permissions": {"defaultMode": mode}})
        assert files.read().default_mode() == (mode, path)


def test_a_project_cannot_bypass_permissions(files: Files) -> None:
    files.write(PROJECT, {"permissions": {"defaultMode": "bypassPermissions"}})
    assert files.read().default_mode() is None


def test_the_users_file_may_be_elsewhere(files: Files) -> None:
    path = files.write("other/settings.json", {"permissions": {"defaultMode": "plan"}})
    moved = files.read(CLAUDE_CONFIG_DIR=str(files.root / "other"))
    assert moved.default_mode() == ("plan", path)


def test_rules_and_hooks_are_read(files: Files) -> None:
    hook = {"matcher": "Bash", "hooks": [{"type": "command", "command": "guard.sh"}]}
    path = files.write(
        USER,
        {
            "permissions": {"deny": ["Bash(rm:*)", 5], "ask": ["Edit"]},
            "hooks": {"PreToolUse": [hook]},
        },
    )
    file = next(file for file in files.read().files if file.path == path)
    assert (file.deny, file.ask, file.hooks) == (
        ("Bash(rm:*)",),
        ("Edit",),
        (Hook("Bash", "guard.sh"),),
    )


def test_rules_of_a_directory_that_is_not_trusted_are_ignored(files: Files) -> None:
    root = str(files.root / "p")
    files.write(PROJECT, {"permissions": {"allow": ["Bash", "Read"]}})
    assert (files.read().untrusted_root, files.read().ignored_rules) == (root, 2)
    files.write("home/.claude.json", {"projects": {root: {"hasTrustDialogAccepted": True}}})
    assert files.read().untrusted_root is None


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"permissions": 5}',
        '{"hooks": []}',
        '{"hooks": {"PreToolUse": [5]}}',
        '{"permissions": {"defaultMode": 5, "deny": "Bash"}}',
        '{"hooks": {"PreToolUse": {"a": 1}}}',
    ],
)
def test_a_broken_file_says_nothing(files: Files, content: str) -> None:
    files.write(USER, content)
    settings = files.read()
    assert settings.default_mode() is None
    assert not any(file.deny or file.hooks for file in settings.files)


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
