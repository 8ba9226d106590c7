"""MCP Tasks of both generations, with real servers, workers and a scripted claude."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import mcp_types as types
import pytest
import trio
from mcp import Client
from mcp.shared.exceptions import MCPError

from agent_dispatch.errors import DispatchError
from agent_dispatch.jobs.origin import Origin
from agent_dispatch.jobs.record import ended as ended_job
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.jobs.waiting import CancelOutcome
from agent_dispatch.model.dispatch import DispatchRequest, DispatchResult, ErrorType
from agent_dispatch.model.job import Job, JobKind, JobStatus
from agent_dispatch.server.mcp_server import build_server
from tests.e2e.mcp_client import McpClient
from tests.faults.conftest import MakeHouse, make_house
from tests.faults.house import House
from tests.run.test_questions import ASKING
from tests.server.fake_service import FakeService
from tests.server.processes import MODERN_META

__all__ = ["make_house"]

GATED = """
turn = json.dumps(read_turn())
init()
if "slow" in turn:
    gate()
result("the answer")
"""
NOW = "task_after_seconds = 0.3"
EXTENSION = "io.modelcontextprotocol/tasks"
PREFIX = "io.modelcontextprotocol/"
SLOW = {"agent": "infra", "task": "slow"}
QUICK = {"agent": "infra", "task": "quick"}
BLOCKING = {
    "dispatch": SLOW,
    "dispatch_stream": SLOW,
    "dispatch_session": SLOW,
}


def modern(takes_tasks: bool = True, **parameters: Any) -> dict[str, Any]:
    capabilities: dict[str, Any] = {"extensions": {EXTENSION: {}}} if takes_tasks else {}
    meta = MODERN_META | {PREFIX + "clientCapabilities": capabilities}
    return {**parameters, "_meta": meta}


async def ended(server: McpClient, task_id: str) -> dict[str, Any]:
    """Poll a modern task, as clients do, until it has ended."""
    with trio.fail_after(20):
        while True:
            task = await server.request("tasks/get", modern(taskId=task_id))
            if task["status"] not in ("working", "input_required"):
                return dict(task)
            await trio.sleep(0.02)


def end(job: Job) -> Job:
    result = DispatchResult(agent="infra", success=False, result="", error="no")
    return ended_job(job, result, job.created_at)


async def is_over(house: House, job_id: str) -> JobStatus:
    return (await house.over(job_id)).status


@pytest.mark.parametrize("tool", BLOCKING)
async def test_a_long_call_becomes_a_task_that_a_later_server_serves(
    make_house: MakeHouse, tool: str
) -> None:
    house = make_house(GATED, settings=NOW)
    with trio.fail_after(60):
        async with house.serving(handshake=False) as server:
            call = modern(name=tool, arguments=BLOCKING[tool])
            task = await server.request("tools/call", call)
            assert task["resultType"] == "task"
            assert task["status"] == "working"
            assert task["ttlMs"] is None
            assert task["pollIntervalMs"] > 0
            assert task["createdAt"].endswith("Z")
            assert task["lastUpdatedAt"] >= task["createdAt"]
            task_id = task["taskId"]
            assert house.store.read(task_id).kind is JobKind.BACKGROUND
            server.process.kill()
        async with house.serving(handshake=False) as server:
            now = await server.request("tasks/get", modern(taskId=task_id))
            assert now["resultType"] == "complete"
            assert now["status"] == "working"
            await house.open_gate()
            done = await ended(server, task_id)
            assert done["status"] == "completed"
            assert done["result"]["structuredContent"]["result"] == "the answer"
            assert done["result"]["structuredContent"]["job_id"] == task_id
            assert json.loads(done["result"]["content"][0]["text"])["success"]


async def test_a_short_call_is_answered_and_a_wrong_one_refused(make_house: MakeHouse) -> None:
    house = make_house(GATED, settings="task_after_seconds = 20")
    with trio.fail_after(60):
        async with house.serving(handshake=False) as server:
            answer = await server.request("tools/call", modern(name="dispatch", arguments=QUICK))
            assert answer["resultType"] == "complete"
            assert answer["structuredContent"]["result"] == "the answer"
            for wrong in ({"agent": "nobody", "task": "x"}, {"agent": "infra"}):
                call = modern(name="dispatch", arguments=wrong)
                assert (await server.request("tools/call", call))["isError"]
            await server.exchange("tools/call", modern(name="list_agents", arguments={}))


async def test_a_client_that_takes_no_tasks_gets_none(make_house: MakeHouse) -> None:
    house = make_house(GATED, settings=NOW)
    with trio.fail_after(60):
        async with house.serving(handshake=False) as server:
            arguments = modern(takes_tasks=False, name="dispatch", arguments=SLOW)
            request_id = await server.post("tools/call", arguments)
            await house.open_gate()
            [answer] = await server.answers([request_id])
            assert answer["structuredContent"]["result"] == "the answer"
            job_id = answer["structuredContent"]["job_id"]
            assert house.store.read(job_id).kind is JobKind.CALL
            refused = await server.exchange("tasks/get", modern(takes_tasks=False, taskId=job_id))
            assert refused["error"]["code"] == -32021
            assert EXTENSION in refused["error"]["data"]["requiredCapabilities"]["extensions"]


async def test_only_tasks_cancel_ends_a_task(make_house: MakeHouse) -> None:
    house = make_house(GATED, settings=NOW)
    with trio.fail_after(60):
        async with house.serving(handshake=False) as server:
            call = modern(name="dispatch", arguments=SLOW)
            request_id = await server.post("tools/call", call)
            [task] = await server.answers([request_id])
            notice = {"requestId": request_id, "reason": "AbortError: user-cancel"}
            await server.notify("notifications/cancelled", notice)
            # Another call of the same joins it, and its cancellation ends nothing.
            [again] = await server.answers([await server.post("tools/call", call)])
            assert again["taskId"] == task["taskId"]
            assert not house.store.read(task["taskId"]).status.is_terminal
            cancelled = await server.request("tasks/cancel", modern(taskId=task["taskId"]))
            assert cancelled["resultType"] == "complete"
            assert (await ended(server, task["taskId"]))["status"] == "cancelled"
            await server.request("tasks/cancel", modern(taskId=task["taskId"]))
            for method in ("tasks/get", "tasks/cancel", "tasks/update"):
                for unknown in ("0" * 32, "no id"):
                    refused = await server.exchange(method, modern(taskId=unknown))
                    assert refused["error"]["code"] == -32602
            for method in ("tasks/list", "tasks/result"):
                refused = await server.exchange(method, modern(taskId=task["taskId"]))
                assert refused["error"]["code"] == -32601
        assert house.agents() == []


async def test_a_person_who_cancels_before_there_is_a_task_ends_the_job(
    make_house: MakeHouse,
) -> None:
    house = make_house(GATED, settings="task_after_seconds = 60")
    with trio.fail_after(60):
        async with house.serving(handshake=False) as server:
            request_id = await server.post("tools/call", modern(name="dispatch", arguments=SLOW))
            job_id = await house.newest_running(beside="")
            await house.with_session(job_id)
            notice = {"requestId": request_id, "reason": "AbortError: user-cancel"}
            await server.notify("notifications/cancelled", notice)
            assert await is_over(house, job_id) is JobStatus.CANCELLED
        assert house.agents() == []


async def test_a_failed_run_is_a_completed_task(make_house: MakeHouse) -> None:
    house = make_house("read_turn(); init(); gate(); sys.exit(3)", settings=NOW)
    with trio.fail_after(60):
        async with house.serving(handshake=False) as server:
            task = await server.request("tools/call", modern(name="dispatch", arguments=SLOW))
            await house.open_gate()
            done = await ended(server, task["taskId"])
            assert done["status"] == "completed"
            assert done["result"]["structuredContent"]["success"] is False


# -- the older form


async def test_an_older_call_with_task_is_always_a_task(make_house: MakeHouse) -> None:
    house = make_house(GATED)
    with trio.fail_after(60):
        async with house.serving() as server:
            wish = {"name": "dispatch", "arguments": SLOW, "task": {"ttl": 60000}}
            created = await server.request("tools/call", wish)
            task = created["task"]
            assert task["status"] == "working"
            assert task["ttl"] is None
            assert task["pollInterval"] > 0
            task_id = task["taskId"]
            server.process.kill()
        async with house.serving() as server:
            assert (await server.request("tasks/get", {"taskId": task_id}))["status"] == "working"
            listed = await server.request("tasks/list", {})
            assert [one["taskId"] for one in listed["tasks"]] == [task_id]
            waiting = await server.post("tasks/result", {"taskId": task_id})
            await house.open_gate()
            [result] = await server.answers([waiting])
            assert result["structuredContent"]["result"] == "the answer"
            assert result["_meta"][PREFIX + "related-task"] == {"taskId": task_id}
            refused = await server.exchange("tasks/cancel", {"taskId": task_id})
            assert refused["error"]["code"] == -32602
            # A call of another tool, and a wrong one, are answered as such.
            other = {"name": "list_agents", "arguments": {}, "task": {}}
            assert "content" in await server.request("tools/call", other)
            wrong = {"name": "dispatch", "arguments": {"agent": "nobody", "task": "x"}, "task": {}}
            refusal = await server.request("tools/call", wrong)
            assert refusal["isError"]
            # What the library does not write itself has no fields of a later revision.
            assert "resultType" not in refusal
            assert "resultType" not in result
            bad_cursor = await server.exchange("tasks/list", {"cursor": "zzz"})
            assert bad_cursor["error"]["code"] == -32602


async def test_older_tasks_are_listed_by_pages_the_newest_first(make_house: MakeHouse) -> None:
    house = make_house(GATED)
    origin = Origin({}, str(house.config.parent))
    store = JobStore(house.jobs, origin=origin)
    request = DispatchRequest(agent="infra", task="x")
    made = []
    for number in range(150):
        kind = JobKind.CALL if number % 15 == 0 else JobKind.BACKGROUND
        claim = store.create(store.new_job(request, kind=kind))
        store.finish(claim, end(claim.job))
        if kind is not JobKind.CALL:
            made.append(claim.job.id)
    stranger = JobStore(house.jobs, origin=Origin({}, "/elsewhere"))
    claim = stranger.create(stranger.new_job(request, kind=JobKind.BACKGROUND))
    stranger.finish(claim, end(claim.job))
    with trio.fail_after(60):
        async with house.serving() as server:
            first = await server.request("tasks/list", {})
            second = await server.request("tasks/list", {"cursor": first["nextCursor"]})
    assert len(first["tasks"]) == 100
    assert "nextCursor" not in second
    listed = [task["taskId"] for task in (*first["tasks"], *second["tasks"])]
    assert listed == made[::-1]


async def test_an_older_task_is_cancelled_with_its_result(make_house: MakeHouse) -> None:
    house = make_house(GATED)
    with trio.fail_after(60):
        async with house.serving() as server:
            wish = {"name": "dispatch", "arguments": SLOW, "task": {}}
            task_id = (await server.request("tools/call", wish))["task"]["taskId"]
            await house.with_session(task_id)
            cancelled = await server.request("tasks/cancel", {"taskId": task_id})
            assert cancelled["status"] == "cancelled"
            result = await server.request("tasks/result", {"taskId": task_id})
            assert result["structuredContent"]["error_type"] == "cancelled"
        assert house.agents() == []


async def test_a_call_that_the_cache_answers_is_the_completed_task_of_that_job(
    make_house: MakeHouse,
) -> None:
    house = make_house(GATED)
    with trio.fail_after(60):
        async with house.serving() as server:
            first = await server.call("dispatch", **QUICK)
            wish = {"name": "dispatch", "arguments": QUICK, "task": {}}
            task = (await server.request("tools/call", wish))["task"]
            assert (task["taskId"], task["status"]) == (first["job_id"], "completed")


async def test_a_task_is_a_reference_where_one_was_asked_for(make_house: MakeHouse) -> None:
    house = make_house(GATED)
    arguments = {**QUICK, "return_ref": True, "summary_chars": 3}
    with trio.fail_after(60):
        async with house.serving() as server:
            wish = {"name": "dispatch", "arguments": arguments, "task": {}}
            task_id = (await server.request("tools/call", wish))["task"]["taskId"]
            result = await server.request("tasks/result", {"taskId": task_id})
            assert result["structuredContent"]["ref"] == task_id
            assert result["structuredContent"]["summary"] == "the"
            assert result["content"][1]["type"] == "resource_link"


async def test_only_the_revision_that_has_older_tasks_is_told_of_them(
    make_house: MakeHouse,
) -> None:
    house = make_house(GATED)
    client = {"name": "test", "version": "1"}
    with trio.fail_after(60):
        for version, has_tasks in (("2025-11-25", True), ("2025-06-18", False)):
            async with house.serving(handshake=False) as server:
                hello = {"protocolVersion": version, "clientInfo": client, "capabilities": {}}
                said = await server.request("initialize", hello)
                assert ("tasks" in said["capabilities"]) is has_tasks
                await server.notify("notifications/initialized", {})
                answer = await server.exchange("tasks/list", {})
                assert ("result" in answer) is has_tasks


class UnreachableService(FakeService):
    async def cancel(
        self, job_id: str, *, by: str = "a caller", keep: bool = False
    ) -> CancelOutcome:
        await trio.lowlevel.checkpoint()
        raise DispatchError("The host gpu does not answer.")


async def test_a_task_that_cannot_be_cancelled_says_why() -> None:
    async with Client(build_server(UnreachableService()), mode="legacy") as client:
        submitted = await client.call_tool("dispatch_async", {"agent": "infra", "task": "go"})
        assert submitted.structured_content is not None
        params = {"taskId": submitted.structured_content["job_id"]}
        request = types.Request[dict[str, Any], str](method="tasks/cancel", params=params)
        with pytest.raises(MCPError, match="The host gpu does not answer") as caught:
            await client.session.send_request(request, types.EmptyResult)
        assert caught.value.error.code == types.INTERNAL_ERROR


# -- several agents

TWO = """
turn = json.dumps(read_turn())
init()
if "slow" in turn and "Combine" not in turn:
    gate()
if "bad" in turn:
    sys.exit(3)
result("So it is. [RESOLVED]" if "discuss" in turn else "the answer")
"""


def several(house: House) -> None:
    """Add a second agent."""
    project = house.config.parent.parent / "web"
    project.mkdir()
    with house.config.open("a") as file:
        file.write(f'[agents.web]\ndirectory = "{project}"\n')


def is_worker(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip() == "dispatch-work"
    except (FileNotFoundError, ProcessLookupError):
        return False  # It has ended since it was listed.


async def with_members(house: House, group_id: str, count: int) -> list[str]:
    """Wait, as any observer does, until the members of a group have begun."""
    with trio.fail_after(20):
        while len(members := house.store.read(group_id).members or []) < count:  # noqa: ASYNC110
            await trio.sleep(0.02)
    return members


async def test_a_parallel_call_that_becomes_a_task_is_one_group_job(
    make_house: MakeHouse,
) -> None:
    house = make_house(TWO, settings=NOW)
    several(house)
    items = [SLOW, {"agent": "web", "task": "bad"}, {**QUICK, "return_ref": True}]
    call = modern(name="dispatch_parallel", arguments={"dispatches": items})
    with trio.fail_after(90):
        async with house.serving(handshake=False) as server:
            task = await server.request("tools/call", call)
            assert task["resultType"] == "task"
            group_id = task["taskId"]
            server.process.kill()
        members = await with_members(house, group_id, 3)
        group = house.store.read(group_id)
        assert group.kind is JobKind.GROUP
        assert group.agents == ["infra", "web"]
        await house.open_gate()
        async with house.serving(handshake=False) as server:
            done = await ended(server, group_id)
            assert done["status"] == "completed"
            assert done["result"].get("structuredContent") is None
            first, second, third = json.loads(done["result"]["content"][0]["text"])
            assert (first["result"], first["job_id"]) == ("the answer", members[0])
            assert second["success"] is False
            assert third["summary"] == "the answer"
            record = await house.over(group_id)
            assert record.status is JobStatus.DONE
            assert record.result is not None
            assert record.result.success
            shown = await server.exchange(
                "tools/call", modern(name="dispatch_wait", arguments={"job_id": group_id})
            )
            content = shown["result"]["structuredContent"]
            assert content["result"]["parsed_result"][0]["result"] == "the answer"
            assert "dispatches" not in content
            assert content["members"] == members
            fetched = await server.exchange(
                "tools/call", modern(name="fetch_result", arguments={"ref": group_id})
            )
            parsed = fetched["result"]["structuredContent"]["parsed_result"]
            assert parsed[2]["result"] == "the answer"
            assert "next_steps" not in json.dumps(parsed)


async def test_the_members_of_a_group_end_with_it(make_house: MakeHouse) -> None:
    house = make_house(TWO, settings=NOW)
    items = [SLOW, {**SLOW, "task": "slow too"}]
    wish = {"name": "dispatch_parallel", "arguments": {"dispatches": items}, "task": {}}
    with trio.fail_after(60):
        async with house.serving() as server:
            group_id = (await server.request("tools/call", wish))["task"]["taskId"]
            members = await with_members(house, group_id, 2)
            for member in members:
                await house.with_session(member)
            listed = await server.request("tasks/list", {})
            assert [one["taskId"] for one in listed["tasks"]] == [group_id]
            cancelled = await server.request("tasks/cancel", {"taskId": group_id})
            assert cancelled["status"] == "cancelled"
            for member in members:
                assert house.store.read(member).status is JobStatus.CANCELLED
            result = await server.request("tasks/result", {"taskId": group_id})
            assert result["structuredContent"]["error_type"] == "cancelled"
        assert house.agents() == []


async def test_a_group_takes_what_is_cached_and_what_is_under_way(make_house: MakeHouse) -> None:
    house = make_house(TWO)
    aggregate = {"dispatches": [QUICK, SLOW, {**QUICK, "fresh": True}], "aggregate": "infra"}
    with trio.fail_after(60):
        async with house.serving() as server:
            cached = (await server.call("dispatch", **QUICK))["job_id"]
            running = await server.post("tools/call", {"name": "dispatch", "arguments": SLOW})
            under_way = await house.newest_running(beside="")
            wish = {"name": "dispatch_parallel", "arguments": aggregate, "task": {}}
            group_id = (await server.request("tools/call", wish))["task"]["taskId"]
            await house.open_gate()
            waiting = await server.post("tasks/result", {"taskId": group_id})
            _, result = await server.answers([running, waiting])
            one, two, three = result["structuredContent"]["individual_results"]
            assert (one["job_id"], one["cached"]) == (cached, True)
            assert (two["job_id"], two["cached"]) == (under_way, True)
            assert three["job_id"] not in (cached, under_way)
            assert result["structuredContent"]["aggregated"]["result"] == "the answer"
            # What a member answered is in the cache of the server.
            again = await server.call("dispatch", **QUICK)
            assert again["job_id"] == three["job_id"]


async def test_the_members_of_a_lost_group_are_named(make_house: MakeHouse) -> None:
    house = make_house(TWO)
    wish = {"name": "dispatch_parallel", "arguments": {"dispatches": [SLOW]}, "task": {}}
    with trio.fail_after(60):
        async with house.serving() as server:
            group_id = (await server.request("tools/call", wish))["task"]["taskId"]
            [member] = await with_members(house, group_id, 1)
            await house.with_session(member)
            for pid in filter(is_worker, house.alive()):
                os.kill(pid, signal.SIGKILL)
            lost = await house.over(group_id)
            assert lost.error_type is ErrorType.LOST
            shown = await server.call("dispatch_status", job_id=group_id)
            assert f'dispatch_status(job_id="{member}")' in shown["error"]
            assert (await house.over(member)).error_type is ErrorType.LOST
        await house.only_agents_left([])


async def test_a_dialogue_becomes_a_background_job(make_house: MakeHouse) -> None:
    house = make_house(TWO, settings="patience_seconds = 0.5")
    several(house)
    slow = {"requester": "infra", "responder": "web", "topic": "discuss, but slow"}
    with trio.fail_after(60):
        async with house.serving() as server:
            answer = await server.call("dispatch_dialogue", **slow)
            assert answer["status"] == "running"
            assert answer["agents"] == ["infra", "web"]
            assert "success" not in answer
            await house.open_gate()
            record = await house.over(answer["job_id"])
            assert record.kind is JobKind.BACKGROUND
            assert record.status is JobStatus.DONE
            quick = {**slow, "topic": "discuss"}
            wish = {"name": "dispatch_dialogue", "arguments": quick, "task": {}}
            task_id = (await server.request("tools/call", wish))["task"]["taskId"]
            result = await server.request("tasks/result", {"taskId": task_id})
            assert result["structuredContent"]["resolved"]
            assert result["structuredContent"]["rounds"] == 1
            assert result["structuredContent"]["job_id"] == task_id


# -- permission questions

QUESTION = (
    ASKING
    + """
read_turn(); init()
ask("r1", {"command": "touch a"})
result(reply()["response"]["behavior"])
"""
)
ASK = 'permission_prompts = "ask"\ntask_after_seconds = 60'


async def asked(server: McpClient) -> dict[str, Any]:
    """Dispatch to an agent that asks; the question makes the task at once."""
    task = await server.request("tools/call", modern(name="dispatch", arguments=SLOW))
    assert task["resultType"] == "task"
    task = await server.request("tasks/get", modern(taskId=task["taskId"]))
    assert task["status"] == "input_required"
    return dict(task)


@pytest.mark.parametrize(("action", "behavior"), [("accept", "allow"), ("decline", "deny")])
async def test_a_question_makes_the_task_at_once_and_is_answered_by_an_update(
    make_house: MakeHouse, action: str, behavior: str
) -> None:
    house = make_house(QUESTION, settings=ASK)
    with trio.fail_after(60):
        async with house.serving(handshake=False) as server:
            task = await asked(server)
            [(key, form)] = task["inputRequests"].items()
            assert form["method"] == "elicitation/create"
            assert "touch a" in form["params"]["message"]
            assert "infra" in form["params"]["message"]
            assert not form["params"]["requestedSchema"].get("required")
            for said in ({"action": "cancel"}, {"action": action, "content": {}}):
                update = modern(taskId=task["taskId"], inputResponses={key: said})
                assert (await server.request("tasks/update", update))["resultType"] == "complete"
                if said["action"] == "cancel":
                    still = await server.request("tasks/get", modern(taskId=task["taskId"]))
                    assert still["status"] == "input_required"
            done = await ended(server, task["taskId"])
            assert done["result"]["structuredContent"]["result"] == behavior
            record = house.store.read(task["taskId"])
            assert record.questions is not None
            assert record.questions[0].answered_by == "task"
