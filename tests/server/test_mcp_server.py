import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import mcp_types as types
import pytest
import trio
import trio.testing
from mcp import Client
from mcp.shared.exceptions import MCPError

import agent_dispatch
from agent_dispatch.server.mcp_server import SERVER_NAME, build_server
from agent_dispatch.server.tools.catalogue import INSTRUCTIONS
from tests.server.fake_service import FakeService

pytestmark = pytest.mark.parametrize("mode", ["auto", "legacy"])


@asynccontextmanager
async def connected(service: FakeService, mode: str) -> AsyncIterator[Client]:
    async with Client(build_server(service), mode=mode, raise_exceptions=True) as client:
        yield client


def envelope(result: types.CallToolResult) -> dict[str, Any]:
    assert len(result.content) == 1
    assert isinstance(result.content[0], types.TextContent)
    parsed: dict[str, Any] = json.loads(result.content[0].text)
    return parsed


async def test_the_server_declares_its_name_and_only_its_capabilities(mode: str) -> None:
    async with connected(FakeService(), mode) as client:
        assert client.server_info is not None
        assert client.server_info.name == SERVER_NAME
        assert client.server_info.version == agent_dispatch.__version__
        assert client.server_capabilities.tools is not None
        assert client.server_capabilities.prompts is None
        assert client.server_capabilities.resources is not None
        assert client.server_capabilities.logging is None
        assert client.instructions == INSTRUCTIONS


async def test_every_tool_is_listed_and_loaded_at_once(mode: str) -> None:
    async with connected(FakeService(), mode) as client:
        tools = (await client.list_tools()).tools
    assert [tool.name for tool in tools] == [
        "list_agents",
        "inspect_agent",
        "dispatch",
        "dispatch_session",
        "dispatch_parallel",
        "dispatch_stream",
        "dispatch_dialogue",
        "dispatch_async",
        "dispatch_status",
        "dispatch_wait",
        "dispatch_send",
        "dispatch_cancel",
        "dispatch_jobs",
        "dispatch_gc",
        "fetch_result",
        "add_agent",
        "update_agent",
        "remove_agent",
        "cache_stats",
        "cache_clear",
    ]
    for tool in tools:
        assert tool.meta is not None
        assert tool.meta["anthropic/alwaysLoad"] is True
        assert tool.output_schema is None


async def test_an_object_answer_is_structured_too(mode: str) -> None:
    async with connected(FakeService(), mode) as client:
        result = await client.call_tool("dispatch", {"agent": "infra", "task": "grüße"})
    assert not result.is_error
    assert result.structured_content == envelope(result)
    assert result.structured_content["result"] == "did: grüße"


async def test_a_list_answer_is_text(mode: str) -> None:
    async with connected(FakeService(), mode) as client:
        result = await client.call_tool("list_agents", {})
    assert result.structured_content is None
    assert isinstance(result.content[0], types.TextContent)
    assert json.loads(result.content[0].text)[0]["allowed_tools"] == []


@pytest.mark.parametrize(
    ("tool", "arguments", "said"),
    [
        ("dispatch", {"agent": "foo", "task": "x"}, "Unknown agent: 'foo'. Available: infra"),
        ("dispatch", {"agent": "infra"}, "Missing argument 'task'"),
        ("dispatch", {"agent": "infra", "task": "x", "tsk": 1}, "(did you mean 'task'?)"),
        ("dispatch", {"agent": "infra", "task": "a\0b"}, "NUL"),
        ("dispatch", {"agent": "infra", "task": "sur\ud800"}, "unpaired surrogate"),
        ("dispatch", {"agent": "infra", "task": "bug"}, "Bug in agent-dispatch"),
        ("list_agent", {}, "(did you mean 'list_agents'?)"),
        ("list_agents", {"filter": "x"}, "Unknown argument 'filter'"),
    ],
)
async def test_a_wrong_call_is_an_error_envelope(
    mode: str, tool: str, arguments: dict[str, Any], said: str
) -> None:
    async with connected(FakeService(), mode) as client:
        result = await client.call_tool(tool, arguments)
        assert result.is_error
        assert said in envelope(result)["error"]
        assert not (await client.call_tool("list_agents", {})).is_error


async def test_a_tool_call_without_a_usable_shape_is_an_error_envelope(mode: str) -> None:
    async with connected(FakeService(), mode) as client:
        for params, said in (
            ({"arguments": {}}, "needs `name`"),
            ({"name": 5}, "needs `name`"),
            ({"name": "dispatch", "arguments": "task"}, "`arguments` of a tool call must be"),
            ({"name": "dispatch", "arguments": [1]}, "`arguments` of a tool call must be"),
        ):
            request = types.Request[dict[str, Any], str](method="tools/call", params=params)
            result = await client.session.send_request(request, types.CallToolResult)
            assert result.is_error
            assert said in envelope(result)["error"]


async def test_an_unknown_method_is_a_protocol_error(mode: str) -> None:
    async with connected(FakeService(), mode) as client:
        with pytest.raises(MCPError, match="Method not found"):
            await client.list_prompts()


async def test_a_cancelled_call_ends_the_run(
    mode: str, autojump_clock: trio.testing.MockClock
) -> None:
    service = FakeService()
    async with connected(service, mode) as client:
        with trio.move_on_after(150) as scope:
            await client.call_tool("dispatch", {"agent": "infra", "task": "forever"})
        assert scope.cancelled_caught
        await trio.sleep(10)
        assert service.events == ["cancelled", "cleaned up"]
        assert not (await client.call_tool("list_agents", {})).is_error


async def test_progress_arrives_while_a_dispatch_runs_and_while_it_is_silent(
    mode: str, autojump_clock: trio.testing.MockClock
) -> None:
    received: list[tuple[float, str | None]] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        await trio.lowlevel.checkpoint()
        assert total is None
        received.append((progress, message))

    async with connected(FakeService(), mode) as client:
        await client.call_tool(
            "dispatch", {"agent": "infra", "task": "sleep 30"}, progress_callback=on_progress
        )
    assert received == [
        (1, "Dispatch a task · 8 s"),
        (2, "Dispatch a task · 16 s"),
        (3, "Dispatch a task · 24 s"),
    ]


async def test_without_a_progress_token_nothing_is_sent(
    mode: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with connected(FakeService(), mode) as client:
        result = await client.call_tool("dispatch", {"agent": "infra", "task": "progress 50"})
        await trio.sleep(60)
    assert not result.is_error


async def test_quick_calls_pass_slow_dispatches(
    mode: str, autojump_clock: trio.testing.MockClock
) -> None:
    service = FakeService()
    async with connected(service, mode) as client, trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(
                client.call_tool, "dispatch", {"agent": "infra", "task": "sleep 1000"}
            )
        await trio.testing.wait_all_tasks_blocked()
        started = trio.current_time()
        assert not (await client.call_tool("list_agents", {})).is_error
        assert trio.current_time() - started < 1
        assert len(service.requests) == 20
        nursery.cancel_scope.cancel()
