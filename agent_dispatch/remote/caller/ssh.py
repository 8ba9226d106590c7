"""The command lines that lead to another machine. Nothing of a task is in them.

What runs there is `sh -c SCRIPT` whatever the user's login shell is: it starts no program by a
name that only an interactive shell would find, and reads no start-up file.
"""

from agent_dispatch.model.config import HostConfig
from agent_dispatch.remote.handshake import MISSING

SSH_OPTIONS = (
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
    # Use a shared connection, but do not become its master: it would end with us.
    "-o",
    "ControlMaster=no",
    "-o",
    "ConnectTimeout=10",
)
"""Options that are safe with any user configuration; that decides how host keys are checked."""
_WITHOUT_MASTER = ("-o", "ControlPath=none")
"""After a cut, a dead shared connection makes new ones hang, whatever the time limits."""
_FOLDERS = (
    '"$HOME/.local/bin"',
    '"$HOME/bin"',
    "/usr/local/bin",
    "/opt/homebrew/bin",
    "/home/linuxbrew/.linuxbrew/bin",
    "/usr/bin",
)


def probe(program: str | None, nonce: str) -> str:
    """The script that becomes `agent-dispatch _remote NONCE`, or says that it is missing."""
    missing = f"echo {MISSING}; exit 127"
    if program is not None:
        return f'[ -x "{program}" ] && exec "{program}" _remote {nonce}; {missing}'
    found = f'[ -x "$d/agent-dispatch" ] && exec "$d/agent-dispatch" _remote {nonce}'
    on_path = f"command -v agent-dispatch >/dev/null && exec agent-dispatch _remote {nonce}"
    return f"for d in {' '.join(_FOLDERS)}; do {found}; done; {on_path}; {missing}"


def argv_to(host: HostConfig, script: str, *, is_retry: bool = False) -> list[str]:
    """The command that runs `sh -c SCRIPT` on a host.

    Args:
        host: How to get there.
        script: Without apostrophes, exclamation marks, backslashes and line breaks, which the login
            shells of other people would each read in their own way.
        is_retry: Make a connection of its own, as a shared one may be dead.
    """
    if host.exec is not None:
        return [*host.exec, "sh", "-c", script]
    options = (*SSH_OPTIONS, *_WITHOUT_MASTER) if is_retry else SSH_OPTIONS
    return ["ssh", *options, "--", host.ssh or "", f"exec sh -c '{script}'"]


def to_try_by_hand(host: HostConfig) -> str:
    """A command that shows a person what is wrong with the way to a host."""
    import shlex  # Only a message needs it.

    if host.exec is not None:
        return shlex.join([*host.exec, "sh", "-c", "echo it works"])
    return shlex.join(["ssh", "-T", host.ssh or "", "echo it works"])
