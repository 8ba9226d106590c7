"""The published predecessor, installed once into an environment outside the repository."""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

VERSION = "0.16.0"
REQUIREMENT = f"agent-dispatch=={VERSION}"

_INSTALL_S = 600
_ASK_S = 60


class NoPredecessorError(Exception):
    """It is missing, does not run, or cannot be installed; the text says what to do."""


def installed_predecessor(environ: Mapping[str, str]) -> Path:
    """Its program in the user's cache folder, installed there if it is missing.

    It gets the Python that runs this benchmark, so that both products run on the same one.
    Concurrent runs are safe: one installs, the others wait.

    Raises:
        NoPredecessorError: It cannot be installed.
    """
    base = environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    cache = Path(base) / "agent-dispatch-bench"
    name = (
        f"{REQUIREMENT.replace('==', '-')}-python{sys.version_info.major}.{sys.version_info.minor}"
    )
    home = cache / name
    program = home / "bin" / "agent-dispatch"
    cache.mkdir(parents=True, exist_ok=True)
    with open(f"{home}.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Written last, so that an interrupted installation is repeated.
        whole = home / "whole"
        if not whole.exists():
            shutil.rmtree(home, ignore_errors=True)
            _run(["uv", "venv", "--quiet", "--python", sys.executable, str(home)])
            python = str(home / "bin" / "python")
            _run(["uv", "pip", "install", "--quiet", "--python", python, REQUIREMENT])
            whole.touch()
    return program


def named_predecessor(path: str) -> Path:
    """Its program, given the program or its interpreter.

    Raises:
        NoPredecessorError: There is no such program.
    """
    program = Path(path)
    if program.name.startswith("python"):
        program = program.with_name("agent-dispatch")
    if not os.access(program, os.X_OK):
        raise NoPredecessorError(
            f"{program} is not a program; name the console script of {REQUIREMENT}"
        )
    # pipx and `uv tool` install a link into the environment.
    return program.resolve()


def version_of(program: Path) -> str:
    """The version that a program reports.

    Raises:
        NoPredecessorError: It does not run.
    """
    return _run([str(program), "--version"], _ASK_S).split()[-1]


def _run(command: Sequence[str], within_s: float = _INSTALL_S) -> str:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=within_s,
            check=True,
        )
    except subprocess.CalledProcessError as error:
        raise NoPredecessorError(_failed(command, error.stdout[-2000:])) from error
    except (subprocess.TimeoutExpired, OSError) as error:
        raise NoPredecessorError(_failed(command, str(error))) from error
    return done.stdout


def _failed(command: Sequence[str], said: str) -> str:
    return (
        f"{' '.join(command)} failed:\n{said.strip()}\n"
        f"Install {REQUIREMENT} into an environment of its own and name it with --against."
    )
