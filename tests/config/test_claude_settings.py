"""What Claude Code's own settings files say of a directory."""

import json
from pathlib import Path

import pytest

from agent_dispatch.config.project.claude_settings import read_claude_settings
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
