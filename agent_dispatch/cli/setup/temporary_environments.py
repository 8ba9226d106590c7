"""Temporary environments: made by uvx, `uv run --with` or `pipx run`, or in a temporary folder.

A registration that starts a program in one breaks when the cache is cleared. Measured with uv
0.13.9: the program runs in `archive-v0/` or `builds-v0/` of uv's cache, `UV` names uv itself, and
`direct_url.json` names the file or address that was installed.
"""

import importlib.metadata
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import msgspec

from agent_dispatch.cli.setup.registration import SERVER_NAME, command_words, wanted_registration
from agent_dispatch.cli.shell import Shell
from agent_dispatch.errors import NOT_JSON

_PACKAGE = "agent_dispatch"
_UV_FOLDER = re.compile(r"(?:archive|builds|environments)-v\d+")
_PIPX_FOLDER = re.compile(r"[0-9a-f]{10,}")
_TEMPORARY_FOLDERS = ("/tmp", "/var/tmp", "/private/tmp")


class Temporary(NamedTuple):
    """Why an environment is temporary."""

    reason: str
    runner: str | None = None
    """The program that made it and clears it: `uv` or `pipx`."""


def why_temporary(program: str) -> Temporary | None:
    """Why the environment of an absolute `program` is temporary; None if it is not."""
    for path in dict.fromkeys((os.path.abspath(program), os.path.realpath(program))):
        environment = Path(path).parent.parent
        if (environment / "pyvenv.cfg").is_file() and (why := _why(environment)) is not None:
            return why
    return None


def _why(environment: Path) -> Temporary | None:
    if (runner := _runner_of(environment)) is not None:
        return Temporary(f"{environment} is in the cache of {runner}, which clears it", runner)
    resolved = environment.resolve()
    for folder in dict.fromkeys((tempfile.gettempdir(), *_TEMPORARY_FOLDERS)):
        if resolved.is_relative_to(Path(folder).resolve()):
            return Temporary(f"{environment} is below {folder}, which is cleared")
    if any((parent / "CACHEDIR.TAG").is_file() for parent in environment.parents):
        return Temporary(f"{environment} is in a cache")
    return None


def _runner_of(environment: Path) -> str | None:
    parts = environment.parts
    if any(map(_UV_FOLDER.fullmatch, parts)):
        return "uv"
    in_cache = environment.parent.name == ".cache" and _PIPX_FOLDER.fullmatch(environment.name)
    if in_cache or ("pipx" in parts and not {".cache", "Caches"}.isdisjoint(parts)):
        return "pipx"
    return None


def source_of_this() -> str | None:
    """The requirement that installs this same installation again; None if unknown.

    A name from a package index does not count: the index is not recorded, and another index may
    have a different package of that name.
    """
    # By its command, because the distribution may have another name.
    commands = importlib.metadata.entry_points(group="console_scripts", name=SERVER_NAME)
    ours = (entry.dist for entry in commands if entry.module.partition(".")[0] == _PACKAGE)
    try:
        text = next((dist.read_text("direct_url.json") for dist in ours if dist is not None), None)
        return None if text is None else source_of(msgspec.json.decode(text, type=Origin))
    except NOT_JSON:
        return None


class _Repository(msgspec.Struct, frozen=True):
    vcs: str
    requested_revision: str | None = None
    commit_id: str | None = None


class Origin(msgspec.Struct, frozen=True):
    """The `direct_url.json` of an installed distribution (PEP 610)."""

    url: str
    vcs_info: _Repository | None = None
    subdirectory: str | None = None


def source_of(origin: Origin) -> str:
    """The origin of an installation as a requirement."""
    if origin.vcs_info is not None:
        revision = origin.vcs_info.requested_revision or origin.vcs_info.commit_id
        at = f"@{revision}" if revision else ""
        below = f"#subdirectory={origin.subdirectory}" if origin.subdirectory else ""
        return f"{origin.vcs_info.vcs}+{origin.url}{at}{below}"
    address = urlsplit(origin.url)
    return unquote(address.path) if address.scheme == "file" else origin.url


class LastingRegistration(msgspec.Struct, frozen=True):
    """The registration to make, with remarks for the user."""

    registration: dict[str, object]
    notes: list[str] = []
    warnings: list[str] = []
    """Why the registration will break, and what to do."""
    advice: str | None = None
    """What to do, alone."""


def registration_of_this(shell: Shell) -> LastingRegistration:
    """The registration for the installation that runs this process."""
    own = wanted_registration(shell.program, sys.executable)
    return lasting_registration(own, shell.environ, source_of_this())


def lasting_registration(
    own: dict[str, object], environ: Mapping[str, str], source: str | None
) -> LastingRegistration:
    """Register the runner (uv, pipx) instead of a program in its temporary environment.

    Args:
        own: The registration that starts the program of this process.
        environ: Of this process, as the runner set it.
        source: Where this installation came from.
    """
    why = why_temporary(command_words(own)[0])
    if why is None:
        return LastingRegistration(own)
    runner = _runner(why.runner, environ)
    if runner is None or source is None:
        install = "" if source is None else f": uv tool install {shlex.quote(source)}"
        advice = f"install agent-dispatch permanently{install} and run its `agent-dispatch init`"
        return LastingRegistration(own, warnings=[f"{why.reason}; {advice}"], advice=advice)
    command, *options = runner
    arguments = [*options, source, SERVER_NAME, "serve"]
    return LastingRegistration(
        {**own, "command": command, "args": arguments},
        notes=[f"{why.reason}, so its runner is registered"],
    )


def _runner(name: str | None, environ: Mapping[str, str]) -> Sequence[str] | None:
    """The command that makes a temporary environment again, by its absolute path.

    MCP clients may lack the folder of uv in PATH.
    """
    path = environ.get("PATH", os.defpath)
    if name == "uv":
        uv = environ.get("UV") or shutil.which("uv", path=path)
        return [os.path.abspath(uv), "tool", "run", "--from"] if uv else None
    if name == "pipx":
        pipx = shutil.which("pipx", path=path)
        # A pipx that was itself run by uvx goes away too.
        lasts = pipx is not None and why_temporary(pipx) is None
        return [os.path.abspath(pipx), "run", "--spec"] if pipx and lasts else None
    return None


def missing_source(registration: Mapping[str, object]) -> str | None:
    """The file or folder that a runner should install from, if it does not exist."""
    words = command_words(registration)
    for option, value in pairwise(words):
        if option in ("--from", "--spec") and os.path.isabs(value) and not os.path.exists(value):
            return value
    return None
