"""Start an MCP server as Claude Code would, ask for its tools, and end it again."""

import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec

from agent_dispatch.errors import NOT_JSON

_WITHIN_S = 10.0
_LEAVE_S = 2.0
_LOOK_EVERY_S = 0.01
_CHUNK_BYTES = 64 * 1024
_MAX_BYTES = 16 * 1024 * 1024
_VERSION = "2025-11-25"
_TOOLS_ID = 2

_REQUESTS = (
    {
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": _VERSION,
            "capabilities": {},
            "clientInfo": {"name": "agent-dispatch doctor", "version": "1"},
        },
    },
    {"method": "notifications/initialized"},
    {"id": _TOOLS_ID, "method": "tools/list"},
)


class Handshake(NamedTuple):
    """How it went."""

    tools: int | None
    """How many tools the server has; None: it did not answer."""
    took_s: float
    complaint: str = ""
    """Why it did not answer."""


def shake_hands(
    command: Sequence[str], environ: Mapping[str, str], *, within_s: float = _WITHIN_S
) -> Handshake:
    """Complete the handshake of the MCP; no process of it is left when this returns.

    Args:
        command: The program and its arguments.
        environ: Its environment.
        within_s: How long it may take to answer.
    """
    started = time.monotonic()
    try:
        process = subprocess.Popen(
            command,
            env=dict(environ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        return Handshake(None, 0, f"it cannot be started: {error.strerror}")
    try:
        tools, complaint = _ask(process, started + within_s)
        return Handshake(tools, time.monotonic() - started, complaint)
    finally:
        _end(process)


def _ask(process: "subprocess.Popen[bytes]", deadline: float) -> tuple[int | None, str]:
    assert process.stdin is not None
    assert process.stdout is not None
    lines = [msgspec.json.encode({"jsonrpc": "2.0", **request}) for request in _REQUESTS]
    try:
        process.stdin.write(b"\n".join([*lines, b""]))
        process.stdin.flush()
    except OSError:
        return None, _died(process)
    heard = b""
    while len(heard) < _MAX_BYTES:
        left_s = deadline - time.monotonic()
        if left_s <= 0 or not select.select([process.stdout], [], [], left_s)[0]:
            return None, "it did not answer in time"
        chunk = os.read(process.stdout.fileno(), _CHUNK_BYTES)
        if not chunk:
            return None, _died(process)
        heard += chunk
        *whole, heard = heard.split(b"\n")
        for line in whole:
            if (tools := _tools_in(line)) is not None:
                return tools, ""
    return None, "it said too much"


def _tools_in(line: bytes) -> int | None:
    try:
        message: Any = msgspec.json.decode(line)
        if message["id"] != _TOOLS_ID:
            return None
        return len(message["result"]["tools"])
    except (*NOT_JSON, KeyError, TypeError):
        return None


def _died(process: "subprocess.Popen[bytes]") -> str:
    """Say that the server ended, with the last line of its stderr."""
    assert process.stderr is not None
    stderr = b""
    if select.select([process.stderr], [], [], _LEAVE_S)[0]:
        stderr = os.read(process.stderr.fileno(), _CHUNK_BYTES)
    lines = stderr.decode("utf-8", "replace").strip().splitlines()
    return ": ".join(["it ended without an answer", *lines[-1:]])


def _end(process: "subprocess.Popen[bytes]") -> None:
    assert process.stdin is not None
    with suppress(OSError):
        process.stdin.close()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_LEAVE_S)
    # End the whole group: a child of the server may outlive it. The kernel does not report when the
    # last member of a group is gone, so poll.
    deadline = time.monotonic() + _LEAVE_S
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        while time.monotonic() < deadline:
            os.killpg(process.pid, 0)
            time.sleep(_LOOK_EVERY_S)
    process.wait()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()
