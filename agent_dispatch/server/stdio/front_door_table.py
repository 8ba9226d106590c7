"""Make the front door's table from the MCP library's answers.

Run `python -m agent_dispatch.server.stdio.front_door_table` after a change of the tools. A test
compares the shipped table with the library.
"""

import re
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import msgspec
import trio

from agent_dispatch.errors import DispatchError
from agent_dispatch.server.stdio.byte_streams import LineReader, Outbox
from agent_dispatch.server.stdio.front_door import (
    DISCOVER,
    HANDSHAKE_VERSIONS,
    LISTS,
    META_CAPABILITIES,
    META_CLIENT,
    META_VERSION,
    MODERN_VERSION,
    TABLE,
    table_key,
)
from agent_dispatch.server.stdio.unanswered import Unanswered
from agent_dispatch.server.stdio_server import serve_messages

_CLIENT = {"name": "table", "version": "1"}
_ANSWER = re.compile(rb'\{"jsonrpc":"2.0","id":(\d+),"result":(.*)\}')


def _modern(method: str, number: int) -> dict[str, object]:
    """Return a request of the modern era."""
    meta = {META_VERSION: MODERN_VERSION, META_CLIENT: _CLIENT, META_CAPABILITIES: {}}
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": {"_meta": meta}}


def _handshake(version: str) -> list[dict[str, object]]:
    """Return the messages that begin a session of an older revision."""
    params = {"protocolVersion": version, "clientInfo": _CLIENT, "capabilities": {}}
    return [
        {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
    ]


def ask_library(requests: Sequence[Mapping[str, object]]) -> list[bytes]:
    """Return the library's answers to requests with the ids 0, 1, ..., as raw JSON results."""
    return trio.run(_ask_library, requests)


async def _ask_library(requests: Sequence[Mapping[str, object]]) -> list[bytes]:
    client, server = socket.socketpair()
    with client, server:
        client.sendall(b"".join(msgspec.json.encode(request) + b"\n" for request in requests))
        client.shutdown(socket.SHUT_WR)
        service = DispatchError("it is not called here")
        async with trio.open_nursery() as nursery:
            lines = LineReader(server.fileno())
            outbox = Outbox(server.fileno(), on_gone=nursery.cancel_scope.cancel)
            with closing(lines), closing(outbox):
                nursery.start_soon(outbox.run)
                await serve_messages(service, lines, outbox, Unanswered())
                await outbox.flush()
                nursery.cancel_scope.cancel()
        server.shutdown(socket.SHUT_WR)
        with client.makefile("rb") as answers:
            found = {int(match[1]): match[2] for match in map(_ANSWER.match, answers) if match}
    return [found[number] for number in sorted(found)]


def make_rows() -> dict[str, bytes]:
    """Ask the library for all rows of the table."""
    rows: dict[str, bytes] = {}
    methods = (DISCOVER, *LISTS)
    answers = ask_library([_modern(method, number) for number, method in enumerate(methods)])
    rows |= {table_key(MODERN_VERSION, m): a for m, a in zip(methods, answers, strict=True)}
    for version in HANDSHAKE_VERSIONS:
        lists = [
            {"jsonrpc": "2.0", "id": number, "method": method}
            for number, method in enumerate(LISTS, start=1)
        ]
        answers = ask_library([*_handshake(version), *lists])
        methods = ("initialize", *LISTS)
        rows |= {table_key(version, m): a for m, a in zip(methods, answers, strict=True)}
    return rows


def shipped(rows: Mapping[str, bytes]) -> bytes:
    """Return the content of the file, without the lists of the older handshake revisions.

    They are the same as those of the newest.
    """
    kept = {
        key: row
        for key, row in rows.items()
        if key.endswith("initialize") or key.startswith((HANDSHAKE_VERSIONS[-1], MODERN_VERSION))
    }
    return b"".join(key.encode() + b"\t" + row + b"\n" for key, row in sorted(kept.items()))


def main() -> None:
    """Write the table."""
    Path(TABLE).write_bytes(shipped(make_rows()))
    sys.stdout.write(f"{TABLE} is written\n")


if __name__ == "__main__":
    main()
