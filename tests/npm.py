"""Packages of npm that tests use, installed once into a cache folder outside the repository."""

import fcntl
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

_INSTALL_S = 240


class CannotInstallError(Exception):
    """A package is missing and cannot be installed; the text says why."""


def cache_folder(environ: Mapping[str, str]) -> Path:
    """The folder in which downloads of the tests are kept between runs."""
    base = environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "agent-dispatch-tests"


def installed(home: Path, packages: Sequence[str]) -> Path:
    """Install `packages` into the folder `home` if it is missing; return the folder.

    Installation scripts of packages are not run. Several test runs may ask at once: one installs,
    and the others wait.

    Args:
        home: The folder; its name should hold the versions.
        packages: As `npm install` takes them.

    Raises:
        CannotInstallError: npm or Node is missing, or the installation failed.
    """
    if home.is_dir():
        return home
    home.parent.mkdir(parents=True, exist_ok=True)
    with open(home.with_name(f"{home.name}.lock"), "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not home.is_dir():
            _install(home, packages)
    return home


def _install(home: Path, packages: Sequence[str]) -> None:
    for tool in ("node", "npm"):
        if shutil.which(tool) is None:
            raise CannotInstallError(f"{tool} is not on PATH")
    with tempfile.TemporaryDirectory(dir=home.parent, prefix="installing-") as scratch:
        prefix = Path(scratch) / "packages"
        prefix.mkdir()
        command = ["npm", "install", "--ignore-scripts", "--no-save", "--no-audit", "--no-fund"]
        command += ["--prefix", str(prefix), *packages]
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
        prefix.rename(home)
