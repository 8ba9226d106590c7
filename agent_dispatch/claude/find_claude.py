"""Find the `claude` program, and check the agent's directory, before anything is started.

If PATH has no `claude`, the folders are searched that its installers use: MCP clients that were
started from a desktop, and services, lack the additions of a login shell to PATH. Only the caller's
home and the folders of system-wide installers are searched.

All of it waits for file systems, so call it in a thread.
"""

import errno
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from agent_dispatch.core.outcome.report import StartFailure, StartStage

SYSTEM_FOLDERS = (
    "/opt/homebrew/bin",
    "/usr/local/bin",
    "/home/linuxbrew/.linuxbrew/bin",
    "/usr/bin",
    "/snap/bin",
    "/run/current-system/sw/bin",
)
"""Folders of Homebrew, npm with its usual prefix, distributions, snap and Nix."""

_HOME_FOLDERS = (
    ".local/bin",  # The native installer; pipx and others put links there too.
    ".claude/local",
    ".claude/local/node_modules/.bin",
    ".npm-global/bin",
    ".npm-packages/bin",
    ".volta/bin",
    ".bun/bin",
    ".local/share/pnpm",
    "Library/pnpm",
    ".yarn/bin",
    ".asdf/shims",
    ".local/share/mise/shims",
    ".nodenv/shims",
    "n/bin",
    ".linuxbrew/bin",
    ".nix-profile/bin",
    "bin",
)

_VARIABLES = {
    "CLAUDE_CONFIG_DIR": "local",
    "NVM_BIN": "",
    "NPM_CONFIG_PREFIX": "bin",
    "npm_config_prefix": "bin",
    "VOLTA_HOME": "bin",
    "BUN_INSTALL": "bin",
    "PNPM_HOME": "",
    "N_PREFIX": "bin",
    "HOMEBREW_PREFIX": "bin",
}
"""Variables that move an installation, and the folder below it."""

_MAX_NPMRC_BYTES = 64 * 1024


def usual_folders(environ: Mapping[str, str]) -> Iterator[str]:
    """Absolute folders in which an installer may have put `claude`, the likeliest first."""
    home = Path(environ.get("HOME") or Path.home())
    moved = (
        os.path.join(environ[name], below) for name, below in _VARIABLES.items() if name in environ
    )
    folders = (
        *moved,
        *(str(home / folder) for folder in _HOME_FOLDERS),
        *_npm_prefix(home),
        *_node_versions(home, environ),
        *SYSTEM_FOLDERS,
    )
    return (folder for folder in folders if os.path.isabs(folder))


def _npm_prefix(home: Path) -> Iterator[str]:
    """Where `npm install -g` puts programs, if the user's .npmrc moves that."""
    try:
        with open(home / ".npmrc", encoding="utf-8", errors="replace") as file:
            text = file.read(_MAX_NPMRC_BYTES)
    except OSError:
        # Usually missing; npm itself reports what is wrong with it.
        return
    for value in re.findall(r"^\s*prefix\s*=\s*(.+?)\s*$", text, re.MULTILINE):
        prefix = re.sub(r"\$\{HOME\}|^~(?=/|$)", lambda _: str(home), value.strip("\"'"))
        yield os.path.join(prefix, "bin")


def _node_versions(home: Path, environ: Mapping[str, str]) -> Iterator[str]:
    """The folders of every Node that a version manager installed, the newest first."""
    data = Path(environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    for root, below in (
        (Path(environ.get("NVM_DIR") or home / ".nvm") / "versions" / "node", "bin"),
        (config / "nvm" / "versions" / "node", "bin"),
        (Path(environ.get("FNM_DIR") or data / "fnm") / "node-versions", "installation/bin"),
        (home / ".fnm" / "node-versions", "installation/bin"),
        (home / "Library/Application Support/fnm/node-versions", "installation/bin"),
        (data / "mise" / "installs" / "node", "bin"),
        (home / ".asdf" / "installs" / "nodejs", "bin"),
        (home / ".nodenv" / "versions", "bin"),
    ):
        try:
            versions = os.listdir(root)
        except OSError:
            # That version manager is not in use.
            continue
        for version in sorted(versions, key=_numbers, reverse=True):
            yield str(root / version / below)


def _numbers(version: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d{1,9}", version)]


def find_program(
    claude: Sequence[str] | None, environ: Mapping[str, str]
) -> tuple[str, ...] | StartFailure:
    """The program to run with an absolute path, or why there is none.

    Args:
        claude: The program and its first arguments; None: `claude` on PATH, else where its
            installers put it.
        environ: Its PATH and home are searched.
    """
    name, *rest = claude or ("claude",)
    # An absolute path: the search must not depend on the agent's directory.
    path = _path(environ)
    if (found := shutil.which(name, path=path)) is not None:
        return (os.path.abspath(found), *rest)
    if (plain := _find_any_file(name, path)) is not None:
        return StartFailure(
            errno=errno.EACCES,
            stage=StartStage.CLI_NOT_EXECUTABLE,
            text=f"{plain} is not executable",
            file=plain,
        )
    if claude is not None:
        return StartFailure(
            errno=errno.ENOENT, stage=StartStage.CLI_MISSING, text=f"{name!r} is not on PATH"
        )
    found = shutil.which(name, path=os.pathsep.join(usual_folders(environ)))
    if found is not None:
        return (found,)
    return StartFailure(
        errno=errno.ENOENT,
        stage=StartStage.CLI_MISSING,
        text=f"{name!r} is not on PATH, nor where its installers put it",
    )


def is_on_path(program: str, environ: Mapping[str, str]) -> bool:
    """Whether `environ` finds an absolute `program` by its name."""
    found = shutil.which(os.path.basename(program), path=_path(environ))
    return found is not None and os.path.abspath(found) == program


def with_program_on_path(environ: Mapping[str, str], program: str) -> dict[str, str]:
    """The environment to run an absolute `program` in.

    If PATH does not find `program`, its folder is added at the end, because a script from npm needs
    the `node` beside it.
    """
    if is_on_path(program, environ):
        return dict(environ)
    return {**environ, "PATH": f"{_path(environ)}{os.pathsep}{os.path.dirname(program)}"}


def _path(environ: Mapping[str, str]) -> str:
    return environ.get("PATH", os.defpath)


def _find_any_file(name: str, path: str) -> str | None:
    folders = [""] if os.path.dirname(name) else path.split(os.pathsep)
    candidates = (os.path.join(folder, name) for folder in folders)
    return next((file for file in candidates if os.path.isfile(file)), None)


def check_directory(directory: str) -> StartFailure | None:
    """Why an agent cannot run in `directory`, if it cannot."""
    try:
        os.scandir(directory).close()
    except OSError as error:
        number = error.errno or errno.ENOENT
        return StartFailure(
            errno=number, stage=StartStage.DIRECTORY, text=f"{directory}: {os.strerror(number)}"
        )
    return None


def no_answer(timeout_s: float) -> StartFailure:
    """The failure of a directory, the agent's or one on PATH, that did not answer in time."""
    text = f"it, or a directory of PATH, did not answer for {timeout_s:g} s: a mount that hangs?"
    return StartFailure(errno=errno.ETIMEDOUT, stage=StartStage.DIRECTORY, text=text)
