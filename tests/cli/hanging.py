"""Runs a command line against a service that never answers; says when its work was cleaned up.

`python -m tests.cli.hanging obedient|stubborn run infra x`: a stubborn service does not end when it
is cancelled.
"""

import os
import sys

import trio

from agent_dispatch.claude.fork_server import ForkServer
from agent_dispatch.cli.app import run_cli
from agent_dispatch.cli.shell import Shell
from agent_dispatch.model.dispatch import (
    NO_OPTIONS,
    CallOptions,
    DispatchRequest,
    DispatchResult,
    OnProgress,
    Progress,
    ignore_progress,
)
from tests.cli.support import FakeService


class HangingService(FakeService):
    """Reports that it works, and then never answers."""

    def __init__(self, *, stubborn: bool) -> None:
        super().__init__()
        self._stubborn = stubborn

    async def dispatch(
        self,
        request: DispatchRequest,
        on_progress: OnProgress = ignore_progress,
        options: CallOptions = NO_OPTIONS,
    ) -> DispatchResult:
        on_progress(Progress("working"))
        try:
            await trio.sleep_forever()
        finally:
            with trio.move_on_after(60 if self._stubborn else 0, shield=True):
                await trio.sleep_forever()
            os.write(2, b"cleaned up\n")
        raise AssertionError("sleep_forever() ended")


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
