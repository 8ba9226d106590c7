"""What a command gets from the outside: environment, streams, and the ways to the heavy rooms."""

import io
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Protocol, TextIO

import msgspec

from agent_dispatch.model.dialogue import DialogueRequest, DialogueResult
from agent_dispatch.model.dispatch import DispatchRequest, DispatchResult, OnProgress
from agent_dispatch.model.job import Job
from agent_dispatch.model.parallel import Member, ParallelResult

if TYPE_CHECKING:
    # For type checkers only: `list` must not pay for the process room.
    from agent_dispatch.claude.fork_server import ForkServer


class Service(Protocol):
    """What the commands need of `run.service.Service`."""

    async def dispatch(self, request: DispatchRequest, on_progress: OnProgress) -> DispatchResult:
        """Run one task to its end."""

    async def parallel(
        self, members: Sequence[Member], aggregate: str, on_progress: OnProgress
    ) -> ParallelResult:
        """Run several tasks at once, and have one agent combine the answers."""

    async def dialogue(self, request: DialogueRequest, on_progress: OnProgress) -> DialogueResult:
        """Let two agents talk about a topic."""

    async def submit(self, request: DispatchRequest) -> Job:
        """Start a background job."""

    async def result(self, ref: str) -> DispatchResult:
        """What is recorded of a job that is over."""


class OpenService(Protocol):
    """What the commands need of `run.service.open_service`."""

    def __call__(
        self,
        *,
        environ: Mapping[str, str],
        fork_server: "ForkServer | None",
        claude: Sequence[str] | None = None,
    ) -> AbstractAsyncContextManager[Service]:
        """Wire a service that lives as long as the block."""


class Shell(msgspec.Struct, frozen=True, kw_only=True):
    """One call of the program. Commands read and write nothing but what is in here."""

    environ: Mapping[str, str]
    stdin: TextIO
    stdout: TextIO
    """The answer; JSON goes to its `buffer`, as UTF-8 in any locale."""
    stderr: TextIO
    """Everything that is not the answer."""
    program: str
    """The path this program was started by, `sys.argv[0]`."""
    start_fork_server: "Callable[[], ForkServer]"
    """Must be called before `trio.run`; the caller closes what it returns."""
    open_service: OpenService
    serve: Callable[[Sequence[str]], int]


def this_shell(serve: Callable[[Sequence[str]], int]) -> Shell:
    """The shell that this process was started from.

    Text that the locale cannot express is written as escapes instead of failing.

    Args:
        serve: Runs the MCP server; the command line knows nothing of that room.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    return Shell(
        environ=os.environ,
        stdin=sys.stdin,
        stdout=sys.stdout,
        stderr=sys.stderr,
        program=sys.argv[0],
        start_fork_server=_start_fork_server,
        open_service=_open_service,
        serve=serve,
    )


def _start_fork_server() -> "ForkServer":
    from agent_dispatch.claude.fork_server import start_fork_server
    from agent_dispatch.claude.open_files import raise_soft_limit
    from agent_dispatch.worker import ENTRIES

    fork_server = start_fork_server(ENTRIES)
    raise_soft_limit()
    return fork_server


def _open_service(
    *,
    environ: Mapping[str, str],
    fork_server: "ForkServer | None",
    claude: Sequence[str] | None = None,
) -> AbstractAsyncContextManager[Service]:
    from agent_dispatch.run.service import open_service

    return open_service(environ=environ, fork_server=fork_server, claude=claude)
