"""Where `claude` is looked for, and what it runs with when PATH does not have it."""

import os
import subprocess
from pathlib import Path

import pytest

from agent_dispatch.claude.find_claude import (
    find_program,
    is_on_path,
    usual_folders,
    with_program_on_path,
)
from agent_dispatch.core.outcome.report import StartFailure, StartStage


def put(file: Path, text: str = "#!/bin/sh\n", mode: int = 0o755) -> str:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    file.chmod(mode)
    return str(file)


def environ_in(home: Path, **more: str) -> dict[str, str]:
    return {"HOME": str(home), "PATH": str(home / "empty"), **more}


@pytest.mark.parametrize(
    "place",
    [
        ".local/bin",
        ".claude/local",
        ".claude/local/node_modules/.bin",
        ".nvm/versions/node/v22.4.0/bin",
        ".config/nvm/versions/node/v20.0.0/bin",
        ".local/share/fnm/node-versions/v22.4.0/installation/bin",
        ".volta/bin",
        ".bun/bin",
        ".npm-global/bin",
        ".local/share/pnpm",
        ".asdf/installs/nodejs/22.4.0/bin",
        ".linuxbrew/bin",
    ],
)
def test_it_is_found_where_an_installer_puts_it(tmp_path: Path, place: str) -> None:
    program = put(tmp_path / place / "claude")
    assert find_program(None, environ_in(tmp_path)) == (program,)


@pytest.mark.parametrize(
    ("variable", "value", "place"),
    [
        ("NVM_DIR", "n", "n/versions/node/v22.4.0/bin"),
        ("NPM_CONFIG_PREFIX", "p", "p/bin"),
        ("CLAUDE_CONFIG_DIR", "c", "c/local"),
        ("HOMEBREW_PREFIX", "b", "b/bin"),
        ("PNPM_HOME", "pn", "pn"),
        ("XDG_DATA_HOME", "d", "d/fnm/node-versions/v22.4.0/installation/bin"),
    ],
)
def test_it_is_found_where_a_variable_moved_it(
    tmp_path: Path, variable: str, value: str, place: str
) -> None:
    program = put(tmp_path / place / "claude")
    environ = environ_in(tmp_path, **{variable: str(tmp_path / value)})
    assert find_program(None, environ) == (program,)


@pytest.mark.parametrize("prefix", ["HOME/npm", '"HOME/npm"', "~/npm", "${HOME}/npm"])
def test_it_is_found_below_the_prefix_of_npm(tmp_path: Path, prefix: str) -> None:
    text = prefix if "$" in prefix else prefix.replace("HOME", str(tmp_path))
    (tmp_path / ".npmrc").write_text(f"registry=x\nprefix = {text}\n")
    program = put(tmp_path / "npm" / "bin" / "claude")
    assert find_program(None, environ_in(tmp_path)) == (program,)


def test_of_several_versions_of_node_the_newest_is_taken(tmp_path: Path) -> None:
    for version in ("v9.9.9", "v22.10.0", "v22.9.0"):
        put(tmp_path / f".nvm/versions/node/{version}/bin/claude")
    assert find_program(None, environ_in(tmp_path)) == (
        str(tmp_path / ".nvm/versions/node/v22.10.0/bin/claude"),
    )


def test_path_comes_first(tmp_path: Path) -> None:
    put(tmp_path / ".local/bin/claude")
    program = put(tmp_path / "empty" / "claude")
    environ = environ_in(tmp_path)
    assert find_program(None, environ) == (program,)
    assert is_on_path(program, environ)
    assert with_program_on_path(environ, program) == environ


def test_a_link_on_path_that_leads_nowhere_does_not_hide_it(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "claude").symlink_to("gone")
    program = put(tmp_path / ".claude/local/claude")
    assert find_program(None, environ_in(tmp_path)) == (program,)


@pytest.mark.parametrize("value", ["", ".", "relative/bin"])
def test_nothing_relative_is_looked_at(tmp_path: Path, value: str) -> None:
    folders = list(usual_folders(environ_in(tmp_path, PNPM_HOME=value, NVM_DIR=value)))
    assert all(map(os.path.isabs, folders))


def test_a_program_that_was_asked_for_by_name_is_looked_for_on_path_only(tmp_path: Path) -> None:
    put(tmp_path / ".local/bin/claude")
    found = find_program(("claude",), environ_in(tmp_path))
    assert isinstance(found, StartFailure)
    assert found.stage is StartStage.CLI_MISSING


def test_a_script_finds_what_lies_beside_it(tmp_path: Path) -> None:
    """As `#!/usr/bin/env node`, with both in a folder of nvm."""
    put(tmp_path / ".nvm/versions/node/v22.4.0/bin/own-node", "#!/bin/sh\necho it runs\n")
    program = put(tmp_path / ".nvm/versions/node/v22.4.0/bin/claude", "#!/usr/bin/env own-node\n")
    environ = with_program_on_path({"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}, program)
    assert environ["PATH"].startswith("/usr/bin:/bin:")
    # A shell, because a script cannot be what interprets a script everywhere.
    ran = subprocess.run(["/bin/sh", "-c", "own-node"], env=environ, capture_output=True, text=True)
    assert ran.stdout == "it runs\n"
