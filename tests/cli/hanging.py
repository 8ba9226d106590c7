"""Runs a command line against a service that never answers; says when its work was cleaned up.

`python -m tests.cli.hanging obedient|stubborn run infra x`: a stubborn service does not end when it
is cancelled.
"""

import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import trio

from agent_dispatch.claude.fork_server import ForkServer
from agent_dispatch.cli.app import run_cli
from agent_dispatch.cli.shell import Shell
from agent_dispatch.jobs.errors import UnknownJobError
from agent_dispatch.model.dialogue import DialogueRequest, DialogueResult
from agent_dispatch.model.dispatch import (
    DispatchRequest,
    DispatchResult,
    Member,
    OnProgress,
    Progress,
    ignore_progress,
)
from agent_dispatch.model.job import Job
from agent_dispatch.model.parallel import ParallelResult
from agent_dispatch.run.jobs import Jobs
from agent_dispatch.run.service import Service


class HangingService(Service, Jobs):
    """Reports that it works, and then never answers."""

    def __init__(self, *, stubborn: bool) -> None:
        self.jobs = self
        self._stubborn = stubborn

    async def dispatch(
        self,
        request: DispatchRequest,
        on_progress: OnProgress = ignore_progress,
        *,
        ref: bool = False,
        fresh: bool = False,
        alone: bool = False,
    ) -> DispatchResult:
        on_progress(Progress("working"))
        try:
            await trio.sleep_forever()
        finally:
            with trio.move_on_after(60 if self._stubborn else 0, shield=True):
                await trio.sleep_forever()
            os.write(2, b"cleaned up\n")
        raise AssertionError("sleep_forever() ended")

    async def parallel(
        self,
        members: Sequence[Member],
        aggregate: str = "",
        on_progress: OnProgress = ignore_progress,
    ) -> ParallelResult:
        raise AssertionError("nothing is given in parallel here")

    async def dialogue(
        self, request: DialogueRequest, on_progress: OnProgress = ignore_progress
    ) -> DialogueResult:
        raise AssertionError("nobody talks here")

    async def submit(self, request: DispatchRequest) -> Job:
        raise AssertionError("nothing is submitted here")

    async def result(self, ref: str) -> DispatchResult:
        raise UnknownJobError(ref)

    @asynccontextmanager
    async def open(
        self,
        *,
        environ: Mapping[str, str],
        fork_server: ForkServer | None,
        claude: Sequence[str] | None = None,
    ) -> AsyncIterator["HangingService"]:
        yield self


def main() -> None:
    service = HangingService(stubborn=sys.argv[1] == "stubborn")
    shell = Shell(
        environ=os.environ,
        stdin=sys.stdin,
        stdout=sys.stdout,
        stderr=sys.stderr,
        program="agent-dispatch",
        start_fork_server=lambda: ForkServer(None),
        open_service=service.open,
        serve=lambda argv: 0,
    )
    sys.exit(run_cli(sys.argv[2:], shell))


if __name__ == "__main__":
    main()
