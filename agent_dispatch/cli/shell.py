"""What a command gets from the outside: environment, streams, configuration, jobs, service."""

import io
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Protocol, TextIO

import msgspec

if TYPE_CHECKING:
    # For type checkers only: a command imports what it opens, and nothing else.
    from agent_dispatch.claude.fork_server import ForkServer
    from agent_dispatch.config.registry import Registry
    from agent_dispatch.jobs.store import JobStore
    from agent_dispatch.model.job import Job
    from agent_dispatch.run.service import Service


class OpenService(Protocol):
    """`run.open_service`."""

    def __call__(
        self,
        *,
        environ: Mapping[str, str],
        fork_server: "ForkServer | None",
        claude: Sequence[str] | None = None,
    ) -> "AbstractAsyncContextManager[Service]":
        """Wire a service that lives as long as the block."""


class Shell(msgspec.Struct, frozen=True, kw_only=True):
    """One call of the program. Commands read and write only what is in here."""

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

    @property
    def is_interactive(self) -> bool:
        """Whether a person can read a question and answer it."""
        return self.stdin.isatty() and self.stderr.isatty()


def this_shell(serve: Callable[[Sequence[str]], int]) -> Shell:
    """The streams and environment of this process.

    Characters that the locale cannot encode are written as escapes.

    Args:
        serve: Runs the MCP server; the command line does not import it.
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


def open_registry(shell: Shell) -> "Registry":
    """The registry of the configuration that this environment points at."""
    from agent_dispatch.config.paths import config_path
    from agent_dispatch.config.registry import Registry

    return Registry(config_path(shell.environ), environ=shell.environ)


def open_store(shell: Shell) -> "JobStore":
    """The jobs that this environment points at."""
    from agent_dispatch.config.paths import config_path, jobs_path
    from agent_dispatch.jobs.store import JobStore

    def notify(job: "Job") -> None:
        from agent_dispatch.run.notify import Notifier

        Notifier(open_registry(shell), shell.environ).job_ended(job)

    return JobStore(jobs_path(shell.environ, config_path(shell.environ)), on_end=notify)


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
) -> "AbstractAsyncContextManager[Service]":
    from agent_dispatch.run.open_service import open_service

    return open_service(environ=environ, fork_server=fork_server, claude=claude)
