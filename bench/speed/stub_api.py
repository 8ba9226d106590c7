"""Serves the tests' stand-in for the Messages API on an inherited listening socket: `FD`."""

import socket
import sys

import trio

from tests.e2e.messages_api import answer, script, serve_messages_api


async def serve(fd: int) -> None:
    """Answer every prompt at once, until killed."""
    always = script(otherwise=answer("done"))
    async with serve_messages_api(socket.socket(fileno=fd), always):
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(serve, int(sys.argv[1]))
