"""Dispatches through the service itself: requests as JSON lines on stdin, results on stdout.

It is a separate program, because the service must run inside the network of the CLI under test.
"""

import os
import sys

import msgspec
import trio

from agent_dispatch.claude.fork_server import ForkServer, start_fork_server
from agent_dispatch.model.dispatch import DispatchRequest
from agent_dispatch.run.open_service import open_service


async def serve(fork_server: ForkServer | None) -> None:
    """Carry out requests one after the other."""
    async with open_service(environ=os.environ, fork_server=fork_server) as service:
        for line in sys.stdin:
            result = await service.dispatch(msgspec.json.decode(line, type=DispatchRequest))
            sys.stdout.write(msgspec.json.encode(result).decode() + "\n")


if __name__ == "__main__":
    trio.run(serve, start_fork_server())
