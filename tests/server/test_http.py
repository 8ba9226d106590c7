"""`agent-dispatch serve --http`: who may connect, what is answered, and how it leaves."""

import os
import re
import signal
import socket
import stat
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
import trio
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from agent_dispatch.errors import ConfigError
from agent_dispatch.server.http_server import is_loopback, read_token
from agent_dispatch.server.tools.catalogue import TOOLS
from tests.server.processes import COMMAND, INITIALIZE, LEAVE_S, Server, serving

# The library's HTTP client leaves the streams of its answers to the garbage collector.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored .*<async_generator:pytest.PytestUnraisableExceptionWarning"
)

ACCEPT = {"accept": "application/json, text/event-stream"}


def environ_of(folder: Path) -> dict[str, str]:
    return {"AGENT_DISPATCH_CONFIG": str(folder / "config" / "agents.toml")}


@asynccontextmanager
async def listening(folder: Path) -> AsyncIterator[tuple[Server, str, Mapping[str, str]]]:
    async with serving("--http", "--port", "0", env=environ_of(folder)) as server:
        await server.wait_stderr("claude mcp add")
        [url] = set(re.findall(r"http://[^\s.]+[.\d]+:\d+/mcp", server.stderr))
        token = (folder / "config" / "http-token").read_text().strip()
        yield server, url, {"authorization": f"Bearer {token}"}


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_it_serves_what_stdio_serves_in_both_eras(tmp_path: Path, mode: str) -> None:
    async with (
        listening(tmp_path) as (_, url, headers),
        httpx2.AsyncClient(headers=headers) as http,
        Client(streamable_http_client(url, http_client=http), mode=mode) as client,
    ):
        assert len((await client.list_tools()).tools) == len(TOOLS)
        answer = await client.call_tool("dispatch", {"agent": "infra", "task": "x"})
        assert answer.structured_content is not None
        assert answer.structured_content["result"] == "did: x"


async def test_only_the_token_lets_a_request_in(tmp_path: Path) -> None:
    async with listening(tmp_path) as (_, url, headers), httpx2.AsyncClient() as http:
        token = headers["authorization"]
        refused: list[list[tuple[str, str]]] = [
            [],
            [("authorization", "")],
            [("authorization", token.removeprefix("Bearer "))],
            [("authorization", token + "x")],
            [("authorization", token[:-1])],
            [("authorization", token), ("authorization", "Bearer other")],
        ]
        for given in refused:
            for method in ("POST", "GET", "DELETE", "OPTIONS"):
                answer = await http.request(
                    method, url, headers=[*ACCEPT.items(), *given], json=INITIALIZE
                )
                assert (answer.status_code, answer.content) == (401, b""), (method, given)
                assert answer.headers["www-authenticate"] == "Bearer"
        answer = await http.post(url, headers={**ACCEPT, **headers}, json=INITIALIZE)
        assert answer.status_code == 200


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [("host", "evil.example", 421), ("origin", "http://evil.example", 403)],
)
async def test_a_web_page_cannot_make_a_browser_talk_to_it(
    tmp_path: Path, name: str, value: str, status: int
) -> None:
    async with listening(tmp_path) as (_, url, headers), httpx2.AsyncClient() as http:
        given = {**ACCEPT, **headers, name: value}
        assert (await http.post(url, headers=given, json=INITIALIZE)).status_code == status


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("task", ["", "chatter"])
async def test_a_signal_ends_it_in_time(tmp_path: Path, signum: int, task: str) -> None:
    async with listening(tmp_path) as (server, url, headers), trio.open_nursery() as nursery:
        if task:
            running = trio.Event()
            nursery.start_soon(dispatch, url, headers, task, running)
            await running.wait()
        server.process.send_signal(signum)
        status, took_s = await server.wait_exit()
        assert status == 0
        assert took_s < LEAVE_S
        # Without a call it may not have been opened yet.
        assert not task or "service closed" in server.stderr
        assert "Traceback" not in server.stderr
        nursery.cancel_scope.cancel()


async def dispatch(url: str, headers: Mapping[str, str], task: str, running: trio.Event) -> None:
    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        await trio.lowlevel.checkpoint()
        running.set()

    try:
        async with (
            httpx2.AsyncClient(headers=headers, timeout=None) as http,
            Client(streamable_http_client(url, http_client=http)) as client,
        ):
            await client.call_tool(
                "dispatch", {"agent": "infra", "task": task}, progress_callback=on_progress
            )
    except* MCPError as errors:
        assert "ended without a response" in str(errors.exceptions)  # noqa: PT017
    except* httpx2.TransportError:
        assert running.is_set()


async def refusal(*args: str, folder: Path, status: int = 1) -> str:
    async with serving("--http", *args, env=environ_of(folder)) as server:
        assert (await server.wait_exit())[0] == status
        assert "Traceback" not in server.stderr
        return server.stderr


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com", ""])
async def test_other_machines_are_let_in_only_when_asked_for(tmp_path: Path, host: str) -> None:
    said = await refusal("--host", host, folder=tmp_path)
    assert "--allow-network" in said
    assert "run your agents as you" in said
    assert not (tmp_path / "config").exists()


async def test_the_danger_of_letting_other_machines_in_is_explained(tmp_path: Path) -> None:
    args = ["--http", "--port", "0", "--host", "0.0.0.0", "--allow-network"]
    async with serving(*args, env=environ_of(tmp_path)) as server:
        await server.wait_stderr("Nothing is encrypted")


async def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = await refusal("--port", str(port), folder=tmp_path)
    assert f"Cannot listen on 127.0.0.1, port {port}: Address already in use" in said
    assert "--port 0" in said


@pytest.mark.parametrize("port", ["-1", "65536"])
async def test_an_invalid_port_is_refused(tmp_path: Path, port: str) -> None:
    assert f"port {port}" in await refusal(f"--port={port}", folder=tmp_path)


async def test_a_wrong_option_is_refused(tmp_path: Path) -> None:
    assert "--prot" in await refusal("--prot", "1", folder=tmp_path, status=2)


@pytest.mark.parametrize(
    ("missing", "tip"),
    [
        ("pip", f"uv pip install --python {sys.executable} hypercorn"),
        ("nothing_else", f"{sys.executable} -m pip install hypercorn"),
    ],
)
async def test_without_the_extra_the_command_that_installs_it_is_named(
    tmp_path: Path, missing: str, tip: str
) -> None:
    # Whether pip is there differs between environments: both cases are made here.
    block = (
        "import sys, runpy, types, importlib.machinery as m; pip = types.ModuleType('pip');"
        " pip.__spec__ = m.ModuleSpec('pip', None); sys.modules['pip'] = pip;"
        " sys.modules.update(dict.fromkeys(['hypercorn', '{}']));"
        " runpy.run_module('{}', None, '{}')"
    )
    command = [sys.executable, "-c", block.format(missing, COMMAND[-1], "__main__")]
    async with serving("--http", command=command, env=environ_of(tmp_path)) as server:
        assert (await server.wait_exit())[0] == 1
        assert f"\ntip: {tip}\n" in server.stderr
        assert "fork_server started" not in server.stderr


# -- the token


def test_the_token_is_made_once_for_the_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "new" / "http-token"
    umask = os.umask(0)
    try:
        token = read_token(path)
    finally:
        os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(token) >= 40
    assert read_token(path) == token
    assert read_token(tmp_path / "other") != token


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o660, 0o604])
def test_a_token_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "http token"
    read_token(path)
    path.chmod(mode)
    with pytest.raises(ConfigError, match=f"rm '{path}'"):
        read_token(path)


@pytest.mark.parametrize("content", ["", "\n", "a b", "caf\u00e9", "a\nb"])
def test_a_file_without_a_token_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "http-token"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="holds no token"):
        read_token(path)


def test_a_token_is_read_only_from_a_regular_file(tmp_path: Path) -> None:
    path = tmp_path / "http-token"
    read_token(tmp_path / "real")
    path.symlink_to(tmp_path / "real")
    with pytest.raises(ConfigError, match="cannot be used"):
        read_token(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(ConfigError):
        read_token(path)
    path.rmdir()
    os.mkfifo(path, 0o600)
    with pytest.raises(ConfigError):
        read_token(path)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.3.2.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("localhost.example.com", False),
        ("", False),
    ],
)
def test_only_loopback_is_this_machine_alone(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
