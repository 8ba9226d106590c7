"""Runs `agent-dispatch serve` with a fake service, in a separate process."""

import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from agent_dispatch.claude.fork_server import ForkServer
from agent_dispatch.errors import ConfigError
from agent_dispatch.server.serve import serve

if TYPE_CHECKING:
    # Imported here because it imports Trio, and this process reports early imports.
    from agent_dispatch.run.service import Service


def say(text: str) -> None:
    if sys.stderr is not None:
        sys.stderr.write(f"{text}\n")


class NoForkServer(ForkServer):
    def __init__(self) -> None:
        super().__init__(None)

    def close(self) -> None:
        say("fork_server closed")


def start_no_fork_server() -> NoForkServer:
    heavy = sorted({"trio", "mcp", "pydantic", "anyio"} & sys.modules.keys())
    say(f"fork_server started with {heavy}")
    return NoForkServer()


@asynccontextmanager
async def open_fake(
    fork_server: ForkServer, environ: Mapping[str, str]
) -> AsyncIterator["Service"]:
    from tests.server.fake_service import FakeService

    if environ.get("FAKE_SERVICE") == "config-error":
        raise ConfigError("agents.toml: line 3 is broken")
    if environ.get("FAKE_SERVICE") == "bug":
        raise ZeroDivisionError("in the service")
    service = FakeService()
    try:
        yield service
    finally:
        say(f"service closed after {service.events}")


if __name__ == "__main__":
    status = serve(sys.argv[1:], start_no_fork_server, open_fake)
    sys.stdout.flush()
    os._exit(status)
