"""The real Claude Code CLI, installed once into a cache folder outside the repository."""

import fcntl
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

VERSION = "2.1.330"
"""The version with which the product's behaviour was measured."""

_PACKAGE = "@anthropic-ai/claude-code"
_INSTALL_S = 240


class CannotInstallError(Exception):
    """The CLI is missing and cannot be installed; the text says why."""


def installed_claude(cache: Path) -> Path:
    """Find the CLI's program in `cache`; install it there if it is missing.

    Several test runs may ask at once: one installs it, and the others wait.

    Raises:
        CannotInstallError: npm or Node is missing, or the installation failed.
    """
    home = cache / f"claude-code-{VERSION}"
    if (program := _program(home)) is not None:
        return program
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / f"claude-code-{VERSION}.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _program(home) is None:
            _install(home)
    if (program := _program(home)) is None:
        raise CannotInstallError(f"{home} has no program for this machine; remove it to retry")
    return program


def cache_folder(environ: Mapping[str, str]) -> Path:
    """The folder in which downloads of the tests are kept between runs."""
    base = environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "agent-dispatch-tests"


def _program(home: Path) -> Path | None:
    # The platform's package has the program: claude-code-linux-x64, -darwin-arm64, ...
    found = sorted(home.glob("node_modules/@anthropic-ai/claude-code-*/claude"))
    return found[0] if found else None


def _install(home: Path) -> None:
    for tool in ("node", "npm"):
        if shutil.which(tool) is None:
            raise CannotInstallError(f"{tool} is not on PATH")
    with tempfile.TemporaryDirectory(dir=home.parent, prefix="installing-") as scratch:
        command = ["npm", "install", "--ignore-scripts", "--no-save", "--no-audit", "--no-fund"]
        prefix = Path(scratch) / "cli"
        prefix.mkdir()
        command += ["--prefix", str(prefix), f"{_PACKAGE}@{VERSION}"]
        try:
            subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=_INSTALL_S,
                check=True,
                text=True,
            )
        except subprocess.CalledProcessError as error:
            raise CannotInstallError(f"npm failed:\n{error.stdout[-2000:]}") from error
        except subprocess.TimeoutExpired as error:
            raise CannotInstallError(f"npm took more than {_INSTALL_S} s") from error
        # Renamed into place, so an existing folder is complete, and finding it needs no lock.
        shutil.rmtree(home, ignore_errors=True)
        prefix.rename(home)
