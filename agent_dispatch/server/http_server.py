"""`agent-dispatch serve --http`: the same server for clients that cannot start a process.

The MCP library's Streamable HTTP app runs on hypercorn's Trio worker. Every request must carry a
token from a file that only the user can read, because every user of the machine can connect to a
port on loopback.
"""

import hmac
import ipaddress
import os
import re
import secrets
import shlex
import signal
import socket
import stat
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from hypercorn.typing import ASGIFramework
from mcp.server.lowlevel import Server
from mcp.server.transport_security import TransportSecuritySettings

from agent_dispatch.config.paths import config_path
from agent_dispatch.errors import ConfigError, InvalidRequestError
from agent_dispatch.file_locks import LockHeldError, locked
from agent_dispatch.files import make_private_directory, replace_durably
from agent_dispatch.server.mcp_server import build_server
from agent_dispatch.server.stdio_server import CLEAN_UP_S, OpeningService

PATH = "/mcp"

_TOKEN_FILE = "http-token"
_MAX_TOKEN_BYTES = 4096
_LOCK_S = 5
_LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")

_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[_Scope, _Receive, _Send], Awaitable[None]]


def run_http_server(
    host: str,
    port: int,
    *,
    allow_network: bool,
    opening: OpeningService,
    environ: Mapping[str, str],
    signals: Sequence[signal.Signals],
) -> None:
    """Serve over HTTP until a signal comes.

    If cancelled work does not end in time, this ends the process.

    Args:
        host: The address to listen on.
        port: 0 lets the system choose; the port is printed on stderr.
        allow_network: Whether `host` may be reachable from other machines.
        opening: The service; closed before this returns.
        environ: Names the configuration; the token lies beside it.
        signals: The signals that end the server.

    Raises:
        DispatchError: The address or the token cannot be used.
    """
    if not is_loopback(host) and not allow_network:
        raise InvalidRequestError(
            f"Other machines may reach the address {host!r}. To use it all the same, add"
            " --allow-network. Then everyone who can reach the port and has the token can run your"
            " agents as you, and the token and all answers travel unencrypted."
        )
    token_path = config_path(environ).parent / _TOKEN_FILE
    token = read_token(token_path)
    with listen(host, port) as listener:
        port = listener.getsockname()[1]
        address = f"[{host}]" if ":" in host else host
        url = f"http://{address}:{port}{PATH}"
        _say(
            f"Serving MCP at {url}. The bearer token is in {token_path}. For Claude Code:\n"
            f"claude mcp add --transport http agent-dispatch {url}"
            f' --header "Authorization: Bearer $(cat {shlex.quote(str(token_path))})"'
        )
        if not is_loopback(host):
            _say(
                "Other machines can reach this port. Nothing is encrypted: everyone who sees the"
                " token can run your agents as you. Put a proxy with TLS in front of it."
            )
        trio.run(_serve_until_signal, listener, address, token, opening, signals)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_token(path: Path) -> str:
    """Read the token; the first call makes one.

    Raises:
        ConfigError: The file cannot be used, or others can read it.
    """
    try:
        make_private_directory(str(path.parent))
        with locked(f"{path}.lock", _LOCK_S):
            if not os.path.lexists(path):
                replace_durably(str(path), f"{secrets.token_urlsafe(32)}\n".encode())
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(descriptor, "rb") as file:
                status = os.fstat(descriptor)
                token = file.read(_MAX_TOKEN_BYTES).decode("ascii", "replace").strip()
    except (OSError, LockHeldError) as error:
        raise ConfigError(f"The token file {path} cannot be used: {error}") from error
    quoted = shlex.quote(str(path))
    is_private = stat.S_ISREG(status.st_mode) and not status.st_mode & 0o077
    if not is_private or status.st_uid != os.geteuid():
        raise ConfigError(
            f"Other users may know the token in {path}. Remove it, and the next start makes a new"
            f" one: rm {quoted}"
        )
    if re.fullmatch(r"[!-~]+", token) is None:
        raise ConfigError(
            f"{path} holds no token. Remove it, and the next start makes one: rm {quoted}"
        )
    return token


def listen(host: str, port: int) -> socket.socket:
    """Open the port.

    Raises:
        ConfigError: It cannot be opened.
    """
    try:
        return socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET
        )
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"Cannot listen on {host}, port {port}: {reason}. Choose another with --port N; with"
            " --port 0 the system chooses."
        ) from error


def http_app(server: Server[Any], address: str, token: str | None) -> App:
    """Return the app that speaks MCP at `PATH`.

    Args:
        server: Answers the requests.
        address: Where it listens. A `Host` or `Origin` with another name is refused, so that no
            web page can make a browser send requests.
        token: Must be in every request; None accepts every request.
    """
    names = dict.fromkeys((*_LOOPBACK_NAMES, address, socket.gethostname()))
    guard = TransportSecuritySettings(
        allowed_hosts=[f"{name}:*" for name in names],
        allowed_origins=[f"http://{name}:*" for name in names],
    )
    app: App = server.streamable_http_app(
        streamable_http_path=PATH, host=address, transport_security=guard
    )
    return app if token is None else partial(_require_token, app, f"Bearer {token}".encode())


async def serve_app(app: App, listener: socket.socket) -> None:
    """Serve an app until cancelled."""
    config = Config()
    # A duplicate, because hypercorn closes it and makes it inheritable.
    descriptor = os.dup(listener.fileno())
    config.bind = [f"fd://{descriptor}"]
    config.loglevel = "WARNING"
    config.include_server_header = False
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve, cast("ASGIFramework", app), config, mode="asgi"))
        os.set_inheritable(descriptor, False)


async def _require_token(
    app: App, wanted: bytes, scope: _Scope, receive: _Receive, send: _Send
) -> None:
    headers = scope.get("headers", ())
    given = [value for name, value in headers if name.lower() == b"authorization"]
    authorized = len(given) == 1 and hmac.compare_digest(given[0], wanted)
    if authorized or scope["type"] == "lifespan":
        await app(scope, receive, send)
    elif scope["type"] == "http":
        refusal = [(b"www-authenticate", b"Bearer"), (b"content-length", b"0")]
        if scope["http_version"].startswith("1"):
            # The body may still be on its way and will not be read, so the connection must end.
            refusal.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": 401, "headers": refusal})
        await send({"type": "http.response.body", "body": b""})
    else:
        await send({"type": "websocket.close"})


async def _serve_until_signal(
    listener: socket.socket,
    address: str,
    token: str,
    opening: OpeningService,
    signals: Sequence[signal.Signals],
) -> None:
    work = trio.CancelScope()
    with trio.open_signal_receiver(*signals) as received:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_end_work, received, work)
            with work:
                async with opening as service:
                    await serve_app(http_app(build_server(service), address, token), listener)
            nursery.cancel_scope.cancel()


async def _end_work(received: AsyncIterator[int], work: trio.CancelScope) -> None:
    async for _ in received:
        break
    work.cancel()
    await trio.sleep(CLEAN_UP_S)
    os._exit(0)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201  # stdout is for answers
