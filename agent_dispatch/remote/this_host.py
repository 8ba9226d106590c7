"""This machine as a host: its identity, and the environment of jobs for remote callers."""

import getpass
import hashlib
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from agent_dispatch.config.paths import config_path, jobs_path
from agent_dispatch.core.command import DEPTH_VARIABLE, MARKER_VARIABLE
from agent_dispatch.files import make_private_directory, replace_durably
from agent_dispatch.model.job import JOB_VARIABLE

CHAIN_VARIABLE = "AGENT_DISPATCH_HOSTS"
"""Agents inherit it: the ids of the hosts that their dispatch came through, comma-separated."""
_MAX_CHAIN = 100


def path_file(config: Path) -> Path:
    """Return the file in which `init` saves its PATH for jobs of remote callers."""
    return config.parent / "remote.env"


def save_path(environ: Mapping[str, str], config: Path) -> None:
    """Save the PATH of this shell: a command over ssh gets a shorter one.

    Raises:
        OSError: It cannot be written.
    """
    path = environ.get("PATH", "")
    if path and "\n" not in path:
        make_private_directory(str(config.parent))
        replace_durably(str(path_file(config)), os.fsencode(f"PATH={path}\n"))


def host_environ(environ: Mapping[str, str], program: str) -> dict[str, str]:
    """Return the environment of jobs for remote callers: no traces of ssh, and the saved PATH.

    Args:
        environ: The environment of this process.
        program: The path by which it was started.
    """
    # They describe the caller, or an agent around this process.
    left_out = (JOB_VARIABLE, MARKER_VARIABLE, DEPTH_VARIABLE, CHAIN_VARIABLE)
    kept = {
        name: value
        for name, value in environ.items()
        if not name.startswith("SSH_") and name not in left_out
    }
    saved = ""
    # Without the file, the PATH is the one from ssh.
    with suppress(OSError):
        for line in path_file(config_path(environ)).read_bytes().splitlines():
            if line.startswith(b"PATH="):
                saved = os.fsdecode(line.removeprefix(b"PATH="))
    folders = (saved, environ.get("PATH", ""), os.path.dirname(os.path.abspath(program)))
    return {**kept, "PATH": ":".join(filter(None, folders))}


def host_id(environ: Mapping[str, str]) -> str:
    """Return 32 hex digits that identify this user's configuration on this machine."""
    machine = b""
    for path in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        with suppress(OSError):
            machine = machine or Path(path).read_bytes()
    config = config_path(environ)
    parts = (socket.gethostname(), os.getuid(), config, jobs_path(environ, config))
    text = machine + "\0".join(map(str, parts)).encode(errors="surrogateescape")
    return hashlib.sha256(text).hexdigest()[:32]


def chain(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the ids of the hosts that this process's dispatch came through, its own last."""
    before = [word for word in environ.get(CHAIN_VARIABLE, "").split(",") if word]
    return (*before[-_MAX_CHAIN:], host_id(environ))


def boot_id() -> str:
    """Return an id that changes with each boot; empty if the system has none."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def user_name() -> str:
    """Return the user of this process, for people to read."""
    with suppress(OSError, KeyError):
        return getpass.getuser()
    return str(os.getuid())
