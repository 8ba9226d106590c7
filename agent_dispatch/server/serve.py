"""`agent-dispatch serve`: the start of a server and its end.

The order of the start matters. First the wire is moved away from stdin and stdout, so that nothing
else can touch it. Then the front door answers what it can with the standard library alone; most
sessions never need more. The first other message makes the process fork the fork server, while
there is one thread and no event loop, and only then import the MCP library and the service.

At the end Claude Code leaves 0.45 s between its first signal and SIGKILL (measured with 2.1.330),
so the process exits without taking the interpreter apart.
"""

import os
import signal
import sys

from agent_dispatch.server.stdio.front_door import FrontDoor, read_table
from agent_dispatch.server.stdio.front_door_loop import LeaveIfHungUp, answer_last, serve_at_door
from agent_dispatch.server.stdio.wire import Wire, take_wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    # At run time these would load modules that a session without a tool call does not need.
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from typing import NoReturn

    from agent_dispatch.claude.fork_server import ForkServer
    from agent_dispatch.errors import DispatchError
    from agent_dispatch.run.service import Service

    StartForkServer = Callable[[], ForkServer]
    OpenService = Callable[
        [ForkServer, Mapping[str, str]], AbstractAsyncContextManager[Service | DispatchError]
    ]

USAGE = """\
usage: agent-dispatch serve
       agent-dispatch serve --http [--host HOST] [--port PORT] [--allow-network]

Serve the agent-dispatch tools over MCP on stdin and stdout. An MCP client starts this; to have
Claude Code do so, run: agent-dispatch init

--http           serve over HTTP instead, for clients that cannot start a process
--host HOST      the address to listen on (127.0.0.1)
--port PORT      the port (8642); 0 lets the system choose
--allow-network  listen also where other machines can connect
"""

DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 8642

TERMINAL_HINT = """\
agent-dispatch serve speaks MCP over stdin and stdout, and an MCP client starts it; here it waits
for JSON-RPC messages from you. To register it with Claude Code: agent-dispatch init. To use the
agents from this shell: agent-dispatch --help. Ctrl-C or Ctrl-D ends it.
"""

REPLACED = (
    "The installation of agent-dispatch was changed or removed while this session was open. Restart"
    " the session, or reconnect the server (in Claude Code: /mcp)."
)

LEAVE_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _start_fork_server() -> "ForkServer":
    from agent_dispatch.claude.fork_server import start_fork_server
    from agent_dispatch.worker import ENTRIES

    return start_fork_server(ENTRIES)


def _open_service(
    fork_server: "ForkServer", environ: "Mapping[str, str]"
) -> "AbstractAsyncContextManager[Service | DispatchError]":
    from agent_dispatch.server.stdio_server import open_service_or_refuse

    return open_service_or_refuse(fork_server, environ)


def serve(
    argv: "Sequence[str]",
    start_fork_server: "StartForkServer" = _start_fork_server,
    open_service: "OpenService" = _open_service,
) -> int:
    """Run `agent-dispatch serve`.

    Args:
        argv: The arguments after `serve`.
        start_fork_server: Called while the process has one thread and few modules.
        open_service: Returns the context manager of the service; entered in the event loop.

    Returns:
        The exit status. End the process with it by `os._exit`: taking the interpreter apart takes
        a good part of the time that the client leaves.
    """
    if list(argv) in (["--help"], ["-h"]):
        sys.stdout.write(USAGE)
        return 0
    if argv and argv[0] != "--http":
        _say(f"agent-dispatch serve: unexpected argument: {argv[0]}\n{USAGE}")
        return 2
    for signum in LEAVE_SIGNALS:
        # There is nothing to clean up before the event loop receives signals, nor after it.
        signal.signal(signum, _leave_on_signal)
    if argv:
        return _serve_http(argv[1:], start_fork_server, open_service)
    if os.isatty(0):
        _say(TERMINAL_HINT)
    try:
        wire = take_wire()
    except OSError as error:
        _say(f"agent-dispatch serve: needs an open stdin and stdout: {error}\n")
        return 1
    door = FrontDoor(read_table())
    if not serve_at_door(wire, door):
        return 0
    try:
        _serve_with_library(wire, door, start_fork_server, open_service)
    except ImportError as error:
        # An upgrade has removed the files since this process began.
        _say(f"agent-dispatch serve: cannot be loaded: {error}\n{REPLACED}\n")
        answer_last(wire, door, REPLACED)
        return 1
    except Exception as error:
        _report(error)
        return 1
    return 0


def _serve_with_library(
    wire: Wire,
    door: FrontDoor,
    start_fork_server: "StartForkServer",
    open_service: "OpenService",
) -> None:
    import gc
    from contextlib import closing

    with closing(start_fork_server()) as fork_server:
        leave_if_hung_up = LeaveIfHungUp(wire, door)
        sys.meta_path.insert(0, leave_if_hung_up)
        # Imports make little garbage. Looking for it takes 6 % of the time to the first answer.
        gc.disable()
        import trio

        from agent_dispatch.claude.open_files import raise_soft_limit
        from agent_dispatch.preload import preload_modules
        from agent_dispatch.server.stdio_server import serve_client

        preload_modules()
        sys.meta_path.remove(leave_if_hung_up)
        raise_soft_limit()
        gc.freeze()
        gc.enable()
        opening = open_service(fork_server, os.environ)
        trio.run(serve_client, wire, door, opening, LEAVE_SIGNALS)


def _serve_http(
    argv: "Sequence[str]",
    start_fork_server: "StartForkServer",
    open_service: "OpenService",
) -> int:
    import argparse
    from contextlib import closing
    from importlib.util import find_spec

    parser = argparse.ArgumentParser("agent-dispatch serve --http", add_help=False)
    parser.add_argument("--help", "-h", action="store_true")
    parser.add_argument("--host", default=DEFAULT_HOST)
    parser.add_argument("--port", type=int, default=DEFAULT_PORT)
    parser.add_argument("--allow-network", action="store_true")
    try:
        options = parser.parse_args(argv)
    except SystemExit:
        return 2
    if options.help:
        sys.stdout.write(USAGE)
        return 0
    if find_spec("hypercorn") is None:
        _say(_http_needs())
        return 1
    try:
        with closing(start_fork_server()) as fork_server:
            from agent_dispatch.claude.open_files import raise_soft_limit
            from agent_dispatch.preload import preload_modules
            from agent_dispatch.server.http_server import run_http_server

            preload_modules()
            raise_soft_limit()
            run_http_server(
                options.host,
                options.port,
                allow_network=options.allow_network,
                opening=open_service(fork_server, os.environ),
                environ=os.environ,
                signals=LEAVE_SIGNALS,
            )
    except Exception as error:
        _report(error)
        return 1
    return 0


def _report(error: Exception) -> None:
    """Print on stderr the error that ended the server."""
    import traceback

    from agent_dispatch.errors import DispatchError

    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, DispatchError):
        _say(f"agent-dispatch serve: {error}\n")
    else:
        _say("".join(traceback.format_exception(error)))


def _say(text: str) -> None:
    # stderr is None if it was closed at the start; its reader may be gone.
    if sys.stderr is not None:
        try:
            sys.stderr.write(text)
        except OSError:
            return


def _leave_on_signal(_signum: int, _frame: object) -> "NoReturn":
    # No flush, because the signal may have interrupted one.
    os._exit(0)


def _http_needs() -> str:
    from importlib.util import find_spec

    # The environments that uv makes have no pip.
    installer = f"{sys.executable} -m pip install"
    if find_spec("pip") is None:
        installer = f"uv pip install --python {sys.executable}"
    return (
        "error: `serve --http` needs hypercorn, and it is not installed beside agent-dispatch.\n"
        f"tip: {installer} hypercorn\n"
    )
