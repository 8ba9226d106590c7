"""A process that owns one guarded child and does nothing else. The tests kill it."""

import os
import sys

from agent_dispatch.claude.fork_server import start_fork_server

fork_server = start_fork_server()

import msgspec  # noqa: E402  # after the fork, as every owner does
import trio  # noqa: E402

from agent_dispatch.claude.child import open_child  # noqa: E402
from agent_dispatch.claude.launcher import Launcher  # noqa: E402
from agent_dispatch.core.command import Command  # noqa: E402


async def main() -> None:
    command = msgspec.json.decode(sys.argv[1], type=Command)
    slow = sys.argv[2] == "slow"

    def forward(chunk: bytes) -> None:
        os.write(1, chunk)

    async with open_child(Launcher(None if slow else fork_server), command, on_stdout=forward):
        await trio.sleep_forever()


trio.run(main)
