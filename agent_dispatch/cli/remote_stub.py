"""`_remote`: the program that a caller on another machine starts here, over ssh or in a container.

The probe of the caller starts `_remote NONCE`. A line of `authorized_keys` may force the command
`_remote --forced --caller NAME --agents a,b` instead. It takes the nonce from the command that the
caller wanted to run, and nothing else.
"""

import os
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

from agent_dispatch.claude.fork_server import start_fork_server
from agent_dispatch.claude.open_files import raise_soft_limit
from agent_dispatch.worker import ENTRIES

MISUSED = 2
_NONCE = re.compile(r"[0-9a-f]{16,64}")
_ASKED = re.compile(r"\b_remote ([0-9a-f]{16,64})\b")
_USAGE = "usage: agent-dispatch _remote NONCE | --forced --caller NAME --agents NAME,NAME\n"


def run_stub(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Serve one caller on stdin and stdout.

    Args:
        argv: The arguments after `_remote`.
        environ: Of this process; SSH_ORIGINAL_COMMAND has the nonce of a forced command.

    Returns:
        The exit status: 0, or 2 for a wrong command line.
    """
    # First, so that nothing else can write to the stdout that the caller reads.
    stdin, stdout = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    caller, agents = "", ""
    nonce = argv[0] if len(argv) == 1 else ""
    if argv[:1] == ["--forced"]:
        options = dict(zip(argv[1::2], argv[2::2], strict=False))
        caller, agents = options.get("--caller", ""), options.get("--agents", "")
        asked = _ASKED.search(environ.get("SSH_ORIGINAL_COMMAND", ""))
        nonce = asked[1] if asked and len(argv) == 5 and caller and agents else ""
    if not _NONCE.fullmatch(nonce):
        sys.stderr.write(_USAGE)
        return MISUSED
    _serve(stdin, stdout, nonce, environ, caller, agents)
    return 0


def _serve(
    stdin: int, stdout: int, nonce: str, environ: Mapping[str, str], caller: str, agents: str
) -> None:
    import logging

    import trio

    from agent_dispatch.preload import preload_modules
    from agent_dispatch.remote.host.rights import Rights
    from agent_dispatch.remote.host.stub import serve
    from agent_dispatch.remote.this_host import host_environ
    from agent_dispatch.run.open_service import open_service

    preload_modules()
    logging.basicConfig(format="agent-dispatch: %(message)s")
    environ = host_environ(environ, sys.argv[0])
    rights = Rights(caller, frozenset(filter(None, agents.split(",")))) if caller else Rights()
    # With all modules loaded, unlike in other owners: its workers share them, and each job saves
    # the time that they take to load. The two processes share their memory.
    with closing(start_fork_server(ENTRIES)) as fork_server:
        raise_soft_limit()

        async def main() -> None:
            await serve(
                stdin,
                stdout,
                nonce,
                environ=environ,
                open_service=lambda environ: open_service(environ=environ, fork_server=fork_server),
                rights=rights,
                doctor=lambda: _checks(environ),
            )

        trio.run(main)


def _checks(environ: Mapping[str, str]) -> list[dict[str, Any]]:
    """Check the installation here for `doctor --host` of the caller."""
    import msgspec

    from agent_dispatch.cli.doctor.host import check_host
    from agent_dispatch.cli.shell import this_shell

    shell = msgspec.structs.replace(this_shell(lambda argv: MISUSED), environ=environ)
    checks: list[dict[str, Any]] = msgspec.to_builtins(list(check_host(shell)))
    return checks
