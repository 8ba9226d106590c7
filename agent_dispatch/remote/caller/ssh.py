"""The command lines that start a process on another host. They contain nothing of a task.

Each runs `sh -c SCRIPT` there, whatever the login shell of the user is. `sh -c` reads no start-up
file, so the script itself searches for the program.
"""

import shlex

from agent_dispatch.model.config import HostConfig
from agent_dispatch.remote.handshake import MISSING

_SSH_OPTIONS = (
    "-T",
    "-e",
    "none",
    "-o",
    "BatchMode=yes",
    "-o",
    "RemoteCommand=none",
    "-o",
    "ClearAllForwardings=yes",
    "-o",
    "ForwardAgent=no",
    "-o",
    "ForwardX11=no",
    "-o",
    "PermitLocalCommand=no",
    # Use a shared connection, but do not become its master, which would end with this process.
    "-o",
    "ControlMaster=no",
    "-o",
    "ConnectTimeout=10",
)
"""Safe with any configuration of the user, which still decides how host keys are checked."""
_WITHOUT_MASTER = ("-o", "ControlPath=none")
"""After a cut, connections over a dead master hang, whatever their time limits."""
_FOLDERS = (
    '"$HOME/.local/bin"',
    '"$HOME/bin"',
    "/usr/local/bin",
    "/opt/homebrew/bin",
    "/home/linuxbrew/.linuxbrew/bin",
    "/usr/bin",
)


def probe(program: str | None, nonce: str) -> str:
    """Return the script that becomes `agent-dispatch _remote NONCE`, or prints `MISSING`."""
    missing = f"echo {MISSING}; exit 127"
    if program is not None:
        return f'[ -x "{program}" ] && exec "{program}" _remote {nonce}; {missing}'
    found = f'[ -x "$d/agent-dispatch" ] && exec "$d/agent-dispatch" _remote {nonce}'
    on_path = f"command -v agent-dispatch >/dev/null && exec agent-dispatch _remote {nonce}"
    return f"for d in {' '.join(_FOLDERS)}; do {found}; done; {on_path}; {missing}"


def argv_to(host: HostConfig, script: str, *, is_retry: bool = False) -> list[str]:
    """Return the command that runs `sh -c SCRIPT` on a host.

    Args:
        host: How to reach it.
        script: Without apostrophes, exclamation marks, backslashes and line breaks, which login
            shells treat differently.
        is_retry: Do not use a shared connection, which may be dead.
    """
    if host.exec is not None:
        return [*host.exec, "sh", "-c", script]
    options = (*_SSH_OPTIONS, *_WITHOUT_MASTER) if is_retry else _SSH_OPTIONS
    return ["ssh", *options, "--", host.ssh or "", f"exec sh -c '{script}'"]


def to_try_by_hand(host: HostConfig) -> str:
    """Return a command with which a person can find out why a host cannot be reached."""
    if host.exec is not None:
        return shlex.join([*host.exec, "sh", "-c", "echo it works"])
    return shlex.join(["ssh", "-T", host.ssh or "", "echo it works"])
