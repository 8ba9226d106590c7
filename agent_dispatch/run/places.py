"""Where installers put `claude` when it is not on PATH.

MCP clients that were started from a desktop, and services, lack what a login shell adds to PATH.
Nothing but the caller's home and the places of system-wide installers is looked at.
"""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

SYSTEM_FOLDERS = (
    "/opt/homebrew/bin",
    "/usr/local/bin",
    "/home/linuxbrew/.linuxbrew/bin",
    "/usr/bin",
    "/snap/bin",
    "/run/current-system/sw/bin",
)
"""Of Homebrew, npm with its usual prefix, distributions, snap and Nix."""

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
        # Seldom there; npm itself says what is wrong with it.
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
