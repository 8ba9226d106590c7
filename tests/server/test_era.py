"""Which requests bind a pipe to a protocol era."""

from typing import Any

import pytest

from tests.server.processes import INITIALIZE, INITIALIZED, MODERN_META, Message, Server, serving

UNSUPPORTED_VERSION = -32022


def modern(
    request_id: object, method: str, *, version: str = "2026-07-28", **params: Any
) -> Message:
    meta = MODERN_META | {"io.modelcontextprotocol/protocolVersion": version}
    return {
        "jsonrpc": "2.0",
        "id": request_id,
        "method": method,
        "params": {**params, "_meta": meta},
    }


def legacy(request_id: object, method: str, **params: Any) -> Message:
    return {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}


LIST_AGENTS: dict[str, Any] = {"name": "list_agents", "arguments": {}}


async def works_as_legacy(server: Server) -> None:
    await server.say(INITIALIZE, INITIALIZED, legacy("call", "tools/call", **LIST_AGENTS))
    assert (await server.hear_answer("init"))["result"]["protocolVersion"] == "2025-11-25"
    assert "result" in await server.hear_answer("call")


@pytest.mark.parametrize(
    "probes",
    [
        [modern("probe", "server/discover")],
        [modern("probe", "tools/list")],
        [modern("first", "server/discover"), modern("probe", "tools/list")],
        [modern("probe", "server/discover", version="2099-01-01")],
        [modern("probe", "tools/call", version="2099-01-01", **LIST_AGENTS)],
        [legacy("probe", "server/discover")],
        [legacy("probe", "ping")],
        [legacy("probe", "tools/list")],
        [legacy("probe", "tools/call", **LIST_AGENTS)],
        [INITIALIZED, modern("probe", "server/discover")],
    ],
)
async def test_a_client_that_only_probes_can_continue_in_both_eras(probes: list[Message]) -> None:
    async with serving() as server:
        await server.say(*probes)
        await server.hear_answer("probe")
        await works_as_legacy(server)
    async with serving() as server:
        await server.say(*probes, modern("call", "tools/call", **LIST_AGENTS))
        assert (await server.hear_answer("call"))["result"]["resultType"] == "complete"


async def test_a_probe_and_the_fallback_may_come_in_one_write() -> None:
    async with serving() as server:
        await server.say(modern("probe", "server/discover"), INITIALIZE, INITIALIZED)
        assert "2026-07-28" in (await server.hear())["result"]["supportedVersions"]
        assert (await server.hear())["id"] == "init"
        await server.say(legacy(1, "tools/list"))
        assert "result" in await server.hear_answer(1)


async def test_an_unknown_version_is_refused_with_those_that_are_known() -> None:
    async with serving() as server:
        await server.say(modern("probe", "server/discover", version="2099-01-01"))
        error = (await server.hear_answer("probe"))["error"]
        assert error["code"] == UNSUPPORTED_VERSION
        assert "2026-07-28" in error["data"]["supported"]
        assert error["data"]["requested"] == "2099-01-01"


async def test_a_modern_call_keeps_its_era() -> None:
    async with serving() as server:
        await server.say(modern("call", "tools/call", **LIST_AGENTS), INITIALIZE)
        heard = {message["id"]: message for message in [await server.hear(), await server.hear()]}
        assert "result" in heard["call"]
        assert heard["init"]["error"]["code"] == UNSUPPORTED_VERSION
        await server.say(modern(2, "tools/call", **LIST_AGENTS))
        assert "result" in await server.hear_answer(2)


async def test_a_handshake_keeps_its_era() -> None:
    async with serving() as server:
        await works_as_legacy(server)
        await server.say(modern("late", "tools/call", **LIST_AGENTS))
        assert "error" in await server.hear_answer("late")
        await server.say(legacy(2, "tools/call", **LIST_AGENTS))
        assert "result" in await server.hear_answer(2)


async def test_a_client_that_leaves_after_its_probe_gets_its_answer() -> None:
    async with serving() as server:
        await server.say(modern("probe", "server/discover"))
        assert server.process.stdin is not None
        await server.process.stdin.aclose()
        assert "result" in await server.hear_answer("probe")
        assert (await server.wait_exit())[0] == 0
