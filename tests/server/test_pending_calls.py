"""Clients with a time limit of their own, on virtual time: no answer is lost to it."""

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
from mcp.shared.memory import create_client_server_memory_streams

from agent_dispatch.model.config import Settings
from agent_dispatch.server.calls.pending import KEPT_S, MAX_KEPT
from agent_dispatch.server.mcp_server import build_server
from tests.server.fake_service import JOB_ID, FakeService

pytestmark = pytest.mark.parametrize("mode", ["auto", "legacy"])

RUN_S = 190
TASK = f"sleep {RUN_S}"
ONE = {"agent": "infra", "task": TASK}
WAITING: dict[str, dict[str, Any]] = {
    "dispatch": ONE,
    "dispatch_stream": ONE,
    "dispatch_session": {**ONE, "session_id": "11111111-2222-4333-8444-555555555555"},
    "dispatch_parallel": {"dispatches": [ONE]},
    "dispatch_dialogue": {"requester": "web", "responder": "infra", "topic": TASK},
}


@asynccontextmanager
async def connected(
    service: FakeService, mode: str, client_name: str = "test", *, waited_s: float = 0
) -> AsyncIterator[Client]:
    """Connect over streams: the library's shortcut in memory sends no cancel notices.

    Each request has waited for `waited_s` before it is read.
    """
    server = build_server(service, arrived_at=lambda _id: trio.current_time() - waited_s)

    @asynccontextmanager
    async def transport() -> AsyncIterator[Any]:
        async with (
            create_client_server_memory_streams() as (theirs, ours),
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(server.run, *ours, server.create_initialization_options())
            yield theirs
            await theirs[1].aclose()

    info = types.Implementation(name=client_name, version="1")
    async with Client(transport(), mode=mode, client_info=info) as client:
        yield client


async def ask(client: Client, limit_s: float, tool: str, arguments: dict[str, Any]) -> Any:
    """Call a tool; None if the client's own limit ended the wait."""
    try:
        result = await client.call_tool(tool, arguments, read_timeout_seconds=limit_s)
    except MCPError as error:
        if error.error.code != types.REQUEST_TIMEOUT:
            raise
        return None
    assert isinstance(result.content[0], types.TextContent)
    return json.loads(result.content[0].text)


def runs_of(service: FakeService) -> int:
    return sum(name in ("dispatch", "dialogue") for name, _ in service.calls)


@pytest.mark.parametrize("limit_s", [5, 25, 60, 180])
@pytest.mark.parametrize("tool", WAITING)
async def test_a_clients_limit_ends_its_wait_and_not_the_run(
    mode: str, tool: str, limit_s: float, autojump_clock: trio.testing.MockClock
) -> None:
    service = FakeService()
    async with connected(service, mode) as client:
        answer, waits = None, 0
        started = trio.current_time()
        while answer is None:
            answer = await ask(client, limit_s, tool, WAITING[tool])
            waits += 1
        assert trio.current_time() - started == pytest.approx(RUN_S, abs=1)
        assert TASK in json.dumps(answer)
    # Where the limit passes in the moment of the answer, the next call gets it.
    assert waits in (-(-RUN_S // limit_s), RUN_S // limit_s + 1)
    assert runs_of(service) == 1


async def test_an_answer_that_came_in_between_is_given_once(
    mode: str, autojump_clock: trio.testing.MockClock
) -> None:
    service = FakeService()
    async with connected(service, mode) as client:
        assert await ask(client, 60, "dispatch_stream", ONE) is None
        await trio.sleep(RUN_S - 60 + KEPT_S - 1)
        before = trio.current_time()
        assert (await ask(client, 60, "dispatch_stream", ONE))["success"]
        assert trio.current_time() - before < 1
        assert await ask(client, 60, "dispatch_stream", ONE) is None
    assert runs_of(service) == 2


async def test_it_is_not_kept_for_longer_than_an_hour(
    mode: str, autojump_clock: trio.testing.MockClock
) -> None:
    service = FakeService()
    async with connected(service, mode) as client:
        assert await ask(client, 60, "dispatch", ONE) is None
        await trio.sleep(RUN_S + KEPT_S + 1)
        assert await ask(client, 60, "dispatch", ONE) is None
    assert runs_of(service) == 2


async def test_another_call_neither_joins_nor_gets_the_answer(
    mode: str, autojump_clock: trio.testing.MockClock
) -> None:
    service = FakeService()
    other = {**ONE, "context": "something else"}
    async with connected(service, mode) as client:
        assert await ask(client, 60, "dispatch", ONE) is None
        assert await ask(client, 60, "dispatch", other) is None
        assert await ask(client, 60, "dispatch_stream", ONE) is None
        await trio.sleep(RUN_S)
        assert (await ask(client, 60, "dispatch", other))["success"]
    assert runs_of(service) == 3


async def test_a_person_who_cancels_the_joined_wait_ends_the_run(
    mode: str, autojump_clock: trio.testing.MockClock
) -> None:
    service = FakeService()
    forever = {"agent": "infra", "task": "forever"}
    async with connected(service, mode) as client:
        assert await ask(client, 60, "dispatch", forever) is None
        assert service.events == []
        with trio.move_on_after(30):
            await client.call_tool("dispatch", forever)
        await trio.sleep(1)
    assert service.events == ["cancelled", "cleaned up"]
    assert runs_of(service) == 1


async def test_a_run_without_a_caller_ends_with_the_server(
    mode: str, autojump_clock: trio.testing.MockClock
) -> None:
    service = FakeService()
    async with connected(service, mode) as client:
        assert await ask(client, 5, "dispatch", {"agent": "infra", "task": "forever"}) is None
        assert service.events == []
    assert service.events == ["cancelled", "cleaned up"]


async def test_the_number_of_kept_answers_is_limited(
    mode: str, autojump_clock: trio.testing.MockClock
) -> None:
    service = FakeService()
    calls = [{**ONE, "context": str(number)} for number in range(MAX_KEPT + 1)]
    async with connected(service, mode) as client, trio.open_nursery() as nursery:
        for call in calls:
            nursery.start_soon(ask, client, 5, "dispatch_stream", call)
        await trio.sleep(RUN_S + 1)
        again = [await ask(client, 5, "dispatch_stream", call) for call in calls]
    assert len([answer for answer in again if answer]) == MAX_KEPT


@pytest.mark.parametrize("tool", ["dispatch", "dispatch_stream", "dispatch_session"])
async def test_a_client_that_is_known_to_be_impatient_is_answered_in_time(
    mode: str, tool: str, autojump_clock: trio.testing.MockClock
) -> None:
    service = FakeService()
    async with connected(service, mode, "claude-ai") as client:
        started = trio.current_time()
        answer = await ask(client, 60, tool, WAITING[tool])
        assert trio.current_time() - started == pytest.approx(50, abs=1)
        assert answer == {
            "status": "running",
            "job_id": JOB_ID,
            "agent": "infra",
            "next": f'Its answer: dispatch_wait(job_id="{JOB_ID}")',
        }
        # A client whose clock passes all the same finds the job going on, and so does a server
        # that ends.
        assert await ask(client, 5, tool, WAITING[tool]) is None
    assert not [call for call in service.calls if call[0] == "cancel"]
    assert len(service.requests) == 1


async def test_the_setting_outranks_what_is_known_of_a_client(
    mode: str, autojump_clock: trio.testing.MockClock
) -> None:
    service = FakeService(used_settings=Settings(patience_seconds=2.5))
    async with connected(service, mode, "claude-ai") as client:
        started = trio.current_time()
        assert (await ask(client, 60, "dispatch", ONE))["status"] == "running"
        assert trio.current_time() - started == pytest.approx(2.5, abs=0.5)
        waited = await ask(client, 60, "dispatch_wait", {"job_id": JOB_ID})
        assert waited["timed_out_waiting"]
        assert trio.current_time() - started == pytest.approx(5, abs=1)
        service.used_settings = Settings(patience_seconds=-1)
        assert await ask(client, 300, "dispatch", {**ONE, "context": "other"})
        assert trio.current_time() - started > RUN_S


async def test_patience_counts_from_the_arrival_of_a_call_that_waited_for_loading(
    mode: str, autojump_clock: trio.testing.MockClock
) -> None:
    service = FakeService(used_settings=Settings(patience_seconds=10))
    async with connected(service, mode, waited_s=7) as client:
        started = trio.current_time()
        assert (await ask(client, 60, "dispatch", ONE))["status"] == "running"
        assert trio.current_time() - started == pytest.approx(3, abs=0.5)


async def test_a_person_who_cancels_in_time_ends_the_background_job(
    mode: str, autojump_clock: trio.testing.MockClock
) -> None:
    service = FakeService()
    async with connected(service, mode, "zed") as client:
        with trio.move_on_after(30):
            await client.call_tool("dispatch", ONE)
        await trio.sleep(1)
        assert ("cancel", (JOB_ID, "its caller")) in service.calls


async def test_a_person_who_cancels_a_call_that_joined_an_answered_one_does_not(
    mode: str, autojump_clock: trio.testing.MockClock
) -> None:
    service = FakeService()
    async with connected(service, mode, "zed") as client:
        assert (await ask(client, 60, "dispatch", ONE))["status"] == "running"
        with trio.move_on_after(30):
            await client.call_tool("dispatch", ONE)
        await trio.sleep(1)
    assert not [call for call in service.calls if call[0] == "cancel"]
