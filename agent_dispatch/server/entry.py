"""`agent-dispatch serve`: from a bare process to a served client, and out again in time.

The order is the point. The wire is moved away first, so that nothing else can touch it; the
fork_server is forked while there is one thread and no loop; only then come the imports that cost.
On the way out Claude Code leaves 0.45 s between its first signal and SIGKILL (measured with
2.1.330), so interpreter teardown is skipped.
"""

import gc
import os
import signal
import sys
import traceback
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    closing,
    suppress,
)
from typing import TYPE_CHECKING, NoReturn, Protocol, TypeVar

from agent_dispatch.errors import DispatchError
from agent_dispatch.server.descriptors import take_wire

if TYPE_CHECKING:
    # At run time these would import, before the fork server is forked, what comes after it.
    from agent_dispatch.process.fork_server import ForkServer
    from agent_dispatch.server.ports import Service

USAGE = """\
usage: agent-dispatch serve

Serve the agent-dispatch tools over MCP on stdin and stdout. An MCP client starts this; to have
Claude Code do so, run: agent-dispatch init
"""

TERMINAL_HINT = """\
agent-dispatch serve speaks MCP over stdin and stdout, and an MCP client starts it; here it waits
for JSON-RPC messages from you. To register it with Claude Code: agent-dispatch init. To use the
agents from this shell: agent-dispatch --help. Ctrl-C or Ctrl-D ends it.
"""

LEAVE_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Closable(Protocol):
    """What the start-up needs to know of a fork server."""

    def close(self) -> None:
        """Let it end."""
        ...


ForkServerT = TypeVar("ForkServerT", bound=Closable)
OpenService = Callable[[ForkServerT, Mapping[str, str]], AbstractAsyncContextManager["Service"]]


def serve(argv: Sequence[str]) -> int:
    """Run `agent-dispatch serve`.

    Args:
        argv: The arguments behind `serve`.

    Returns:
        The exit status. End the process with it at once, by `os._exit`: the wire is gone, and
        taking the interpreter apart takes a good part of the time that the client leaves.
    """
    return serve_with(argv, _start_fork_server, _open_service)


def serve_with(
    argv: Sequence[str],
    start_fork_server: Callable[[], ForkServerT],
    open_service: OpenService[ForkServerT],
) -> int:
    """Do what `serve` does, with other parts.

    Args:
        argv: The arguments behind `serve`.
        start_fork_server: Called while the process has one thread and few modules.
        open_service: Called in the event loop, with the fork server and the environment.

    Returns:
        The exit status, as `serve` does.
    """
    if list(argv) in (["--help"], ["-h"]):
        sys.stdout.write(USAGE)
        return 0
    if argv:
        _say(f"agent-dispatch serve: unexpected argument: {argv[0]}\n{USAGE}")
        return 2
    for signum in LEAVE_SIGNALS:
        # Until the loop has its own receiver there is nothing to clean up, and after it neither.
        signal.signal(signum, _leave_on_signal)
    try:
        return _serve(start_fork_server, open_service)
    except Exception as error:
        _report(error)
        return 1


def _serve(
    start_fork_server: Callable[[], ForkServerT], open_service: OpenService[ForkServerT]
) -> int:
    if os.isatty(0):
        _say(TERMINAL_HINT)
    try:
        wire = take_wire()
    except OSError as error:
        _say(f"agent-dispatch serve: needs an open stdin and stdout: {error}\n")
        return 1
    with closing(start_fork_server()) as fork_server:
        # Imports make little garbage, and what they make stays. Looking at it all over again is
        # 6 % of the time to the first answer.
        gc.disable()
        from agent_dispatch.late import import_late_modules
        from agent_dispatch.process.open_files import raise_soft_limit
        from agent_dispatch.server.host import run_server

        raise_soft_limit()
        import_late_modules()

        gc.freeze()
        gc.enable()
        run_server(
            wire,
            lambda: open_service(fork_server, os.environ),
            signals=LEAVE_SIGNALS,
            leave=os._exit,
        )
    return 0


def _report(error: Exception) -> None:
    """Say on stderr what ended the server."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, DispatchError):
        _say(f"agent-dispatch serve: {error}\n")
    else:
        _say("".join(traceback.format_exception(error)))


def _say(text: str) -> None:
    # stderr is None if it was closed at the start, and nobody may be left to read it.
    if sys.stderr is not None:
        with suppress(OSError):
            sys.stderr.write(text)


def _start_fork_server() -> "ForkServer":
    from agent_dispatch.process.fork_server import start_fork_server
    from agent_dispatch.worker import ENTRIES

    return start_fork_server(ENTRIES)


@asynccontextmanager
async def _open_service(
    fork_server: "ForkServer", environ: Mapping[str, str]
) -> AsyncIterator["Service"]:
    from agent_dispatch.dispatch.service import open_service
    from agent_dispatch.server.refusing import RefusingService

    async with AsyncExitStack() as stack:
        opening = open_service(fork_server=fork_server, environ=environ)
        service: Service
        try:
            service = await stack.enter_async_context(opening)
        except DispatchError as error:
            # Told to whoever calls a tool, who can mend it; a server that ends tells nobody.
            service = RefusingService(error)
        yield service


def _leave_on_signal(_signum: int, _frame: object) -> NoReturn:
    # Without a flush: this may have interrupted one.
    os._exit(0)
