"""Questions that clients put to their users, in both eras, with real servers and workers."""

import json
from collections.abc import Callable
from typing import Any

import mcp_types as types
import pytest
import trio
from mcp import Client, StdioServerParameters

from agent_dispatch.model.job import Job, JobKind
from tests.e2e.mcp_client import McpClient
from tests.faults.conftest import MakeHouse, make_house
from tests.faults.house import PRODUCT, House
from tests.run.test_questions import ASKING
from tests.server.processes import MODERN_META

__all__ = ["make_house"]

ASK = 'permission_prompts = "ask"\n'
ASKS = ASKING + "read_turn(); init(); ask('r1', {'command': 'touch a'})\n"
ANSWERS = "result(reply()['response']['behavior'])"
ASKS_TWICE = (
    ASKING
    + """
read_turn(); init()
said = []
for number in range(2):
    ask(f"r{number}", {"n": number})
    said.append(reply()["response"]["behavior"])
result(json.dumps(said))
"""
)
PREFIX = "io.modelcontextprotocol/"
CALL: dict[str, Any] = {"name": "dispatch", "arguments": {"agent": "infra", "task": "go"}}


class FormClient:
    """A client of the older era, whose user does with each form what the test says."""

    def __init__(self, client: McpClient, *actions: str) -> None:
        self.client = client
        self.forms: list[dict[str, Any]] = []
        self.cancelled: list[Any] = []
        self._actions = list(actions)

    async def initialize(self, version: str = "2025-11-25", **capabilities: Any) -> None:
        info = {"name": "test", "version": "1"}
        params = {
            "protocolVersion": version,
            "capabilities": capabilities or {"elicitation": {}},
            "clientInfo": info,
        }
        await self.client.request("initialize", params)
        await self.client.notify("notifications/initialized", {})

    async def call(self, **params: Any) -> Any:
        """Call a tool, and answer the forms that come meanwhile."""
        return await self.request("tools/call", **params)

    async def request(self, method: str, **params: Any) -> Any:
        request_id = await self.client.post(method, params)
        while (message := await self.client._receive()).get("id") != request_id or (
            "method" in message
        ):
            if message.get("method") == "elicitation/create":
                self.forms.append(message["params"])
                if self._actions:
                    await self._answer(message["id"], self._actions.pop(0))
            if message.get("method") == "notifications/cancelled":
                self.cancelled.append(message["params"])
        assert "error" not in message, message
        return message["result"]

    async def _answer(self, request_id: Any, action: str) -> None:
        if action == "error":
            error = {"code": -32603, "message": "no"}
            await self.client._send({"id": request_id, "error": error})
        elif action != "nothing":
            await self.client._send({"id": request_id, "result": {"action": action}})


def modern(**parameters: Any) -> dict[str, Any]:
    meta = MODERN_META | {PREFIX + "clientCapabilities": {"elicitation": {"form": {}}}}
    return {**parameters, "_meta": meta}


def said(result: dict[str, Any]) -> Any:
    return json.loads(result["content"][0]["text"])


def only_job(house: House) -> Job:
    (row,) = house.store.lister.newest().jobs
    return house.store.settle(row.id)


@pytest.mark.parametrize("version", ["2025-06-18", "2025-11-25"])
@pytest.mark.parametrize(("action", "verdict"), [("accept", "allow"), ("decline", "deny")])
async def test_an_older_client_shows_a_form_while_the_call_goes_on(
    action: str, verdict: str, version: str, make_house: MakeHouse
) -> None:
    house = make_house(ASKS + ANSWERS, settings=ASK)
    with trio.fail_after(60):
        async with house.serving(handshake=False) as server:
            client = FormClient(server, action)
            await client.initialize(version)
            result = said(await client.call(**CALL))
    assert result["result"] == verdict
    (form,) = client.forms
    assert "infra" in form["message"]
    assert '{"command":"touch a"}' in form["message"]
    assert form["requestedSchema"] == {"type": "object", "properties": {}}
    job = only_job(house)
    assert job.kind is JobKind.CALL
    assert [(past.answer, past.answered_by) for past in job.questions or ()] == [
        (verdict, "elicitation")
    ]


@pytest.mark.parametrize(
    ("action", "verdict"), [("cancel", "allow"), ("error", "allow"), ("nothing", "deny")]
)
async def test_another_answer_counts_while_a_form_is_open_or_after_it_was_closed(
    action: str, verdict: str, make_house: MakeHouse
) -> None:
    house = make_house(ASKS + ANSWERS, settings=ASK)
    results: list[Any] = []
    with trio.fail_after(60):
        async with (
            house.serving(handshake=False) as server,
            trio.open_nursery() as nursery,
        ):
            client = FormClient(server, action)
            await client.initialize()

            async def call() -> None:
                results.append(said(await client.call(**CALL)))

            nursery.start_soon(call)
            await until(lambda: client.forms and only_job(house).question)
            await house.command("answer", only_job(house).id, verdict)
    assert results[0]["result"] == verdict
    assert [past.answered_by for past in only_job(house).questions or ()] == ["cli"]
    assert len(client.forms) == 1


async def test_a_client_without_forms_is_asked_nothing(make_house: MakeHouse) -> None:
    house = make_house(ASKS + ANSWERS, settings=ASK + "question_seconds = 1\n")
    with trio.fail_after(60):
        async with house.serving(handshake=False) as server:
            client = FormClient(server)
            await client.initialize(roots={})
            result = said(await client.call(**CALL))
            listed = said(await client.call(name="list_agents", arguments={}))
    assert result["result"] == "deny"
    assert client.forms == []
    assert [row["name"] for row in listed] == ["infra"]


async def test_a_wait_for_a_job_shows_its_questions_too(make_house: MakeHouse) -> None:
    house = make_house(ASKS + ANSWERS, settings=ASK)
    with trio.fail_after(60):
        async with house.serving(handshake=False) as server:
            client = FormClient(server, "accept")
            await client.initialize()
            submitted = said(await client.call(name="dispatch_async", arguments=CALL["arguments"]))
            wait = {"job_id": submitted["job_id"], "timeout_seconds": 40}
            job = said(await client.call(name="dispatch_wait", arguments=wait))
    assert job["status"] == "done"
    assert job["result"]["result"] == "allow"


async def test_an_older_task_shows_its_questions_while_its_result_is_waited_for(
    make_house: MakeHouse,
) -> None:
    house = make_house(ASKS + ANSWERS, settings=ASK)
    with trio.fail_after(60):
        async with house.serving(handshake=False) as server:
            client = FormClient(server, "accept")
            await client.initialize()
            task = (await client.call(**CALL, task={}))["task"]
            result = await client.request("tasks/result", taskId=task["taskId"])
    assert said(result)["result"] == "allow"


async def test_a_form_whose_answer_is_not_taken_ends_no_call(make_house: MakeHouse) -> None:
    house = make_house(ASKS + ANSWERS, settings=ASK + "question_seconds = 1\n")
    house.environ["AGENT_DISPATCH_DEPTH"] = "1"
    with trio.fail_after(60):
        async with house.serving(handshake=False) as server:
            client = FormClient(server, "accept")
            await client.initialize()
            result = said(await client.call(**CALL))
    assert len(client.forms) == 1
    assert result["result"] == "deny"


# -- the newer era


async def test_a_newer_client_is_answered_with_the_question_and_repeats_its_call(
    make_house: MakeHouse,
) -> None:
    house = make_house(ASKS_TWICE, settings=ASK)
    with trio.fail_after(60):
        async with house.serving(handshake=False) as server:
            first = await server.request("tools/call", modern(**CALL))
            assert first["resultType"] == "input_required"
            ((key, form),) = first["inputRequests"].items()
            assert form["method"] == "elicitation/create"
            assert '{"n":0}' in form["params"]["message"]
            assert form["params"]["requestedSchema"] == {"type": "object", "properties": {}}
            assert only_job(house).kind is JobKind.BACKGROUND
            second = await server.request(
                "tools/call", retry(first, {key: {"action": "accept", "content": {}}})
            )
            assert second["resultType"] == "input_required"
            ((other, form),) = second["inputRequests"].items()
            assert '{"n":1}' in form["params"]["message"]
            last = await server.request("tools/call", retry(second, {other: {"action": "decline"}}))
    result = said(last)
    assert json.loads(result["result"]) == ["allow", "deny"]
    assert result["job_id"] == only_job(house).id
    assert [past.answered_by for past in only_job(house).questions or ()] == ["elicitation"] * 2


async def test_the_members_of_a_group_ask_by_the_call_that_waits_for_all(
    make_house: MakeHouse,
) -> None:
    house = make_house(ASKS + ANSWERS, settings=ASK)
    both = [{"agent": "infra", "task": task} for task in ("one", "two")]
    call = {"name": "dispatch_parallel", "arguments": {"dispatches": both}}
    with trio.fail_after(90):
        async with house.serving(handshake=False) as server:
            answer = await server.request("tools/call", modern(**call))
            forms = 0
            while answer.get("resultType") == "input_required":
                keys = list(answer["inputRequests"])
                forms += len(keys)
                responses = {key: {"action": "accept"} for key in keys}
                answer = await server.request("tools/call", retry(answer, responses, call))
            left = json.loads(await house.command("questions", "--json"))
    assert forms == 2
    assert [result["result"] for result in said(answer)] == ["allow", "allow"]
    assert left == []


async def test_an_agent_of_a_dialogue_asks_by_the_call(make_house: MakeHouse) -> None:
    script = (
        ASKING
        + """
for line in sys.stdin:
    init(); ask("r1", {"command": "touch a"})
    result(f"{reply()['response']['behavior']} [RESOLVED]")
"""
    )
    house = make_house(script, settings=ASK)
    agents = house.config.read_text()
    house.config.write_text(
        agents.replace("[settings]", "[agents.db]\n" + agents.split("\n")[1] + "\n[settings]")
    )
    arguments = {"requester": "infra", "responder": "db", "topic": "What now?"}
    call = {"name": "dispatch_dialogue", "arguments": arguments}
    with trio.fail_after(90):
        async with house.serving(handshake=False) as server:
            answer = await server.request("tools/call", modern(**call))
            asked = []
            while answer.get("resultType") == "input_required":
                keys = list(answer["inputRequests"])
                asked += [form["params"]["message"] for form in answer["inputRequests"].values()]
                responses = {key: {"action": "decline"} for key in keys}
                answer = await server.request("tools/call", retry(answer, responses, call))
    assert "db" in asked[0]
    assert said(answer)["resolved"]
    assert "deny" in said(answer)["final_answer"]


async def test_an_answer_to_a_group_goes_to_the_member_that_asks(make_house: MakeHouse) -> None:
    house = make_house(ASKS + ANSWERS, settings=ASK + "task_after_seconds = 600\n")
    both = [{"agent": "infra", "task": task} for task in ("one", "two")]
    call = {"name": "dispatch_parallel", "arguments": {"dispatches": both}}
    with trio.fail_after(90):
        async with house.serving(handshake=False) as server:
            params = modern(**call)
            params["_meta"][PREFIX + "clientCapabilities"] = {"extensions": {PREFIX + "tasks": {}}}
            task = await server.request("tools/call", params)
            assert task["resultType"] == "task"
            group = house.store.settle(task["taskId"])
            assert group.kind is JobKind.GROUP
            for _ in range(2):
                await until(lambda: house.store.settle(group.id).question)
                listed = json.loads(await house.command("questions", "--json"))
                assert group.id not in {row["job_id"] for row in listed}
                answered = json.loads(await house.command("answer", group.id, "deny", "--json"))
                assert answered["job_id"] in (house.store.settle(group.id).members or [])
            ended = await house.over(group.id)
    assert ended.question is None
    assert ended.result is not None
    answers: Any = ended.result.parsed_result
    assert [each["result"] for each in answers] == ["deny", "deny"]


async def test_a_later_server_takes_a_repeated_call(make_house: MakeHouse) -> None:
    house = make_house(ASKS + ANSWERS, settings=ASK)
    with trio.fail_after(60):
        async with house.serving(handshake=False) as server:
            first = await server.request("tools/call", modern(**CALL))
            server.process.kill()
        async with house.serving(handshake=False) as server:
            (key,) = first["inputRequests"]
            repeated = retry(first, {key: {"action": "accept"}})
            assert said(await server.request("tools/call", repeated))["result"] == "allow"


async def test_a_form_that_is_closed_is_not_shown_again(make_house: MakeHouse) -> None:
    house = make_house(ASKS + ANSWERS, settings=ASK)
    answers: list[Any] = []
    with trio.fail_after(60):
        async with (
            house.serving(handshake=False) as server,
            trio.open_nursery() as nursery,
        ):
            first = await server.request("tools/call", modern(**CALL))
            (key,) = first["inputRequests"]

            async def repeat() -> None:
                repeated = retry(first, {key: {"action": "cancel"}})
                answers.append(await server.request("tools/call", repeated))

            nursery.start_soon(repeat)
            await until(lambda: only_job(house).question)
            await house.command("answer", only_job(house).id, "allow")
    assert said(answers[0])["result"] == "allow"


async def test_an_agent_that_does_not_ask_runs_in_the_server(
    make_house: MakeHouse,
) -> None:
    house = make_house("read_turn(); init(); result()")
    with trio.fail_after(60):
        async with house.serving(handshake=False) as server:
            result = await server.request("tools/call", modern(**CALL))
    assert said(result)["result"] == "fine"
    assert only_job(house).kind is JobKind.CALL


@pytest.mark.parametrize(
    "state",
    ["", "{}", "nonsense", "[" * 5000, json.dumps({"call": "00", "job_id": "1" * 32})],
    ids=["empty", "object", "word", "deep", "other call"],
)
async def test_a_state_of_another_call_is_refused(state: str, make_house: MakeHouse) -> None:
    house = make_house(ASKS + ANSWERS, settings=ASK)
    with trio.fail_after(60):
        async with house.serving(handshake=False) as server:
            params = modern(**CALL, requestState=state, inputResponses={})
            result = await server.request("tools/call", params)
    assert "requestState" in said(result)["error"]
    assert house.store.lister.newest().jobs == []


async def test_an_answer_that_is_not_taken_is_refused_with_the_reason(
    make_house: MakeHouse,
) -> None:
    house = make_house(ASKS + ANSWERS, settings=ASK)
    with trio.fail_after(60):
        async with house.serving(handshake=False) as server:
            first = await server.request("tools/call", modern(**CALL))
        house.environ["AGENT_DISPATCH_DEPTH"] = "1"
        async with house.serving(handshake=False) as server:
            (key,) = first["inputRequests"]
            repeated = retry(first, {key: {"action": "accept"}})
            refused = said(await server.request("tools/call", repeated))
            assert "A dispatched agent does not allow itself anything" in refused["error"]
        assert only_job(house).question
        await house.command("cancel", only_job(house).id)


@pytest.mark.parametrize("mode", ["legacy", "auto"])
@pytest.mark.parametrize(("action", "verdict"), [("accept", "allow"), ("decline", "deny")])
async def test_the_librarys_own_client_shows_forms_in_both_eras(
    action: Any, verdict: str, mode: str, make_house: MakeHouse
) -> None:
    house = make_house(ASKS_TWICE, settings=ASK)
    shown: list[str] = []

    async def show(context: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
        await trio.lowlevel.checkpoint()
        shown.append(params.message)
        return types.ElicitResult(action=action, content={} if action == "accept" else None)

    server = StdioServerParameters(
        command=PRODUCT[0], args=[*PRODUCT[1:], "serve"], env=house.environ
    )
    with trio.fail_after(90):
        async with Client(server, mode=mode, elicitation_callback=show) as client:
            result = await client.call_tool(CALL["name"], CALL["arguments"])
            change = await client.call_tool(WIDER["name"], WIDER["arguments"])
    assert result.structured_content is not None
    assert json.loads(result.structured_content["result"]) == [verdict] * 2
    assert change.is_error is (action == "decline")
    assert len(shown) == 3


# -- more rights


WIDER: dict[str, Any] = {
    "name": "update_agent",
    "arguments": {"name": "infra", "allowed_tools": ["Bash"]},
}


@pytest.mark.parametrize("action", ["accept", "decline", "cancel", "error"])
async def test_more_rights_need_an_accepted_form_in_the_older_era(
    action: str, make_house: MakeHouse
) -> None:
    house = make_house("")
    before = house.config.read_text()
    with trio.fail_after(60):
        async with house.serving(handshake=False) as server:
            client = FormClient(server, action)
            await client.initialize()
            result = said(await client.call(**WIDER))
            shown = said(await client.call(name="inspect_agent", arguments={"name": "infra"}))
    (form,) = client.forms
    assert "allowed_tools: none -> Bash" in form["message"]
    if action == "accept":
        assert result["action"] == "updated"
        assert [change["by"] for change in shown["rights_changes"]] == ["elicitation"]
    else:
        assert "Ask your user to run: agent-dispatch update infra" in result["error"]
        assert house.config.read_text() == before


@pytest.mark.parametrize("action", ["accept", "decline", "cancel"])
async def test_more_rights_need_an_accepted_form_in_the_newer_era(
    action: str, make_house: MakeHouse
) -> None:
    house = make_house("")
    before = house.config.read_text()
    with trio.fail_after(60):
        async with house.serving(handshake=False) as server:
            asked = await server.request("tools/call", modern(**WIDER))
            assert asked["resultType"] == "input_required"
            (key,) = asked["inputRequests"]
            assert house.config.read_text() == before
            other = {**WIDER, "arguments": {"name": "infra", "allowed_tools": ["Bash", "Write"]}}
            responses = {key: {"action": action}}
            refused = said(await server.request("tools/call", retry(asked, responses, other)))
            assert "requestState" in refused["error"]
            result = said(await server.request("tools/call", retry(asked, responses, WIDER)))
    if action == "accept":
        assert result["action"] == "updated"
    else:
        assert "Ask your user to run: agent-dispatch update infra" in result["error"]
        assert house.config.read_text() == before


async def test_a_dispatched_agent_is_shown_no_form(make_house: MakeHouse) -> None:
    house = make_house("", settings="mcp_may_widen_permissions = true\n")
    house.environ["AGENT_DISPATCH_DEPTH"] = "1"
    with trio.fail_after(60):
        async with house.serving(handshake=False) as server:
            client = FormClient(server, "accept")
            await client.initialize()
            result = said(await client.call(**WIDER))
    assert "dispatched agent" in result["error"]
    assert client.forms == []


def retry(
    answer: dict[str, Any], responses: dict[str, Any], call: dict[str, Any] = CALL
) -> dict[str, Any]:
    return modern(**call, requestState=answer["requestState"], inputResponses=responses)


async def until(seen: Callable[[], object]) -> None:
    while not seen():  # noqa: ASYNC110  # as the person at the client sees it
        await trio.sleep(0.02)
