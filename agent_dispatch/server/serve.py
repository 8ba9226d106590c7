"""`agent-dispatch serve`: from a bare process to a served client, and out again in time.

The order is the point. The wire is moved away first, so that nothing else can touch it. Then the
front door answers what it can, with the standard library alone; most sessions never need more. For
the first message that it cannot answer the fork server is forked, while there is one thread and no
loop, and only then come the imports that cost.

On the way out Claude Code leaves 0.45 s between its first signal and SIGKILL (measured with
2.1.330), so interpreter teardown is skipped.
"""

import os
import select
import signal
import sys

from agent_dispatch.server.stdio.front_door import FrontDoor, read_table
from agent_dispatch.server.stdio.wire import Wire, is_hung_up, is_pollable, take_wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    # At run time these would import what a session that calls no tool does not need.
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from typing import NoReturn, Protocol, TypeVar

    from agent_dispatch.claude.fork_server import ForkServer
    from agent_dispatch.errors import DispatchError
    from agent_dispatch.run.service import Service

    class Closable(Protocol):
        """What the start-up needs to know of a fork server."""

        def close(self) -> None:
            """Let it end."""
            ...

    ForkServerT = TypeVar("ForkServerT", bound=Closable)
    OpenService = Callable[
        [ForkServerT, Mapping[str, str]], AbstractAsyncContextManager["Service | DispatchError"]
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


_CHUNK_BYTES = 64 * 1024


def serve(argv: "Sequence[str]") -> int:
    """Run `agent-dispatch serve`.

    Args:
        argv: The arguments after `serve`.

    Returns:
        The exit status. End the process with it at once, by `os._exit`: the wire is gone, and
        taking the interpreter apart takes a good part of the time that the client leaves.
    """
    return serve_with(argv, _start_fork_server, _open_service)


def serve_with(
    argv: "Sequence[str]",
    start_fork_server: "Callable[[], ForkServerT]",
    open_service: "OpenService[ForkServerT]",
) -> int:
    """Do what `serve` does, with other parts.

    Args:
        argv: The arguments after `serve`.
        start_fork_server: Called while the process has one thread and few modules.
        open_service: Called in the event loop, with the fork server and the environment.

    Returns:
        The exit status, as `serve` does.
    """
    if list(argv) in (["--help"], ["-h"]):
        sys.stdout.write(USAGE)
        return 0
    if argv and argv[0] != "--http":
        _say(f"agent-dispatch serve: unexpected argument: {argv[0]}\n{USAGE}")
        return 2
    for signum in LEAVE_SIGNALS:
        # Until the loop has its own receiver there is nothing to clean up, and after it neither.
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
    if not _serve_at_door(wire, door):
        return 0
    try:
        _serve_behind_door(wire, door, start_fork_server, open_service)
    except ImportError as error:
        # An upgrade has taken the files away since this process began.
        _say(f"agent-dispatch serve: cannot be loaded: {error}\n{REPLACED}\n")
        _answer_last(wire, door, REPLACED)
        return 1
    except Exception as error:
        _report(error)
        return 1
    return 0


def _serve_at_door(wire: Wire, door: FrontDoor) -> bool:
    """Answer the client until a message is not the door's; False if the client left instead."""
    ends = {fd for fd in (wire.read_fd, wire.write_fd) if is_pollable(fd)}
    for fd in ends:
        os.set_blocking(fd, False)
    left = _answer_at_door(wire, door)
    if left:
        for fd in ends:
            # Other processes may share the open description.
            os.set_blocking(fd, True)
    return not left


def _answer_at_door(wire: Wire, door: FrontDoor) -> bool:
    """Answer until a message is not the door's, or an answer does not fit: False.

    True if the client left, or no longer reads.
    """
    while True:
        line, newline, rest = wire.unread.partition(b"\n")
        if not newline:
            if len(line) > _CHUNK_BYTES:
                return False
            chunk = _read(wire.read_fd)
            if chunk:
                wire.unread += chunk
                continue
            if not line:
                return True
            rest = b""  # Input that ends without a line feed is a line too.
        if line and not line.isspace():
            frame = door.answer(line)
            if frame is None:
                return False
            try:
                wire.unwritten = frame[_write(wire.write_fd, frame) :]
            except OSError:
                return True
        wire.unread = rest
        if wire.unwritten:
            return False


def _read(fd: int) -> bytes:
    """Read a chunk once there is one; empty at the end, which is also input that fails."""
    try:
        return os.read(fd, _CHUNK_BYTES)
    except BlockingIOError:
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        poller.poll()
        return _read(fd)
    except OSError:
        return b""


def _write(fd: int, frame: bytes) -> int:
    """Write what fits; say how many bytes that is."""
    try:
        return os.write(fd, frame)
    except BlockingIOError:
        return 0


class _LeaveWhenAlone:
    """Leaves while modules are loaded if the client has left: asked before each module."""

    def __init__(self, wire: Wire, door: FrontDoor) -> None:
        self._wire = wire
        self._door = door
        self._may_ask = is_pollable(wire.read_fd)

    def find_spec(self, *_args: object) -> None:
        """Find nothing; part of the protocol of `sys.meta_path`."""
        if self._may_ask and is_hung_up(self._wire.read_fd):
            while chunk := _read(self._wire.read_fd):
                self._wire.unread += chunk
            _answer_last(self._wire, self._door)
            os._exit(0)


def _answer_last(wire: Wire, door: FrontDoor, refusal: str = "") -> None:
    """Answer what is the door's among what was read; refuse the rest if there is a reason."""
    frames = b""
    for line in wire.unread.splitlines():
        frames += door.answer(line) or (door.refuse(line, refusal) if refusal else b"")
    for fd in (wire.read_fd, wire.write_fd):
        os.set_blocking(fd, True)
    try:
        os.write(wire.write_fd, wire.unwritten + frames)
    except OSError:
        return  # The reader is gone.


def _serve_behind_door(
    wire: Wire,
    door: FrontDoor,
    start_fork_server: "Callable[[], ForkServerT]",
    open_service: "OpenService[ForkServerT]",
) -> None:
    import gc
    from contextlib import closing
    from time import monotonic

    wire.handed_over_at = monotonic()
    with closing(start_fork_server()) as fork_server:
        leave_when_alone = _LeaveWhenAlone(wire, door)
        sys.meta_path.insert(0, leave_when_alone)
        # Imports make little garbage, and what they make stays. Looking at it all over again is
        # 6 % of the time to the first answer.
        gc.disable()
        from agent_dispatch.claude.open_files import raise_soft_limit
        from agent_dispatch.preload import preload_modules
        from agent_dispatch.server.stdio_server import run_server

        preload_modules()
        sys.meta_path.remove(leave_when_alone)
        raise_soft_limit()
        gc.freeze()
        gc.enable()
        run_server(
            wire,
            door,
            lambda: open_service(fork_server, os.environ),
            signals=LEAVE_SIGNALS,
            leave=os._exit,
        )


def _serve_http(
    argv: "Sequence[str]",
    start_fork_server: "Callable[[], ForkServerT]",
    open_service: "OpenService[ForkServerT]",
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
                open_service=lambda: open_service(fork_server, os.environ),
                environ=os.environ,
                signals=LEAVE_SIGNALS,
                leave=os._exit,
            )
    except Exception as error:
        _report(error)
        return 1
    return 0


def _report(error: Exception) -> None:
    """Say on stderr what ended the server."""
    import traceback

    from agent_dispatch.errors import DispatchError

    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, DispatchError):
        _say(f"agent-dispatch serve: {error}\n")
    else:
        _say("".join(traceback.format_exception(error)))


def _say(text: str) -> None:
    # stderr is None if it was closed at the start, and nobody may be left to read it.
    if sys.stderr is not None:
        try:
            sys.stderr.write(text)
        except OSError:
            return


def _start_fork_server() -> "ForkServer":
    from agent_dispatch.claude.fork_server import start_fork_server
    from agent_dispatch.worker import ENTRIES

    return start_fork_server(ENTRIES)


def _open_service(
    fork_server: "ForkServer", environ: "Mapping[str, str]"
) -> "AbstractAsyncContextManager[Service | DispatchError]":
    from agent_dispatch.server.stdio_server import open_service_or_refuse

    return open_service_or_refuse(fork_server, environ)


def _leave_on_signal(_signum: int, _frame: object) -> "NoReturn":
    # Without a flush: this may have interrupted one.
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
