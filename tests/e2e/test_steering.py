"""What steers a run of the real CLI: messages, an interruption, and the agent's own table."""

import json
import os
import shlex
import signal
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.e2e.messages_api import (
    ApiError,
    ApiRequest,
    Held,
    MessagesApi,
    Reply,
    answer,
    bash,
    call,
    script,
)
from tests.e2e.world import Finished, Witness, World
from tests.jobs.holders import holder_of

pytestmark = pytest.mark.e2e

BYPASS = ("--permission-mode", "bypassPermissions")
SEND_RUNS = int(os.environ.get("AGENT_DISPATCH_SEND_RUNS", "1"))
"""How often a message is sent; the issue asks for 20 of 20."""


def write_table(world: World, name: str, toml: str) -> None:
    config = world.home / ".config" / "agent-dispatch" / "agents.toml"
    text = config.read_text()
    heading = f"[agents.{name}]\n"
    assert heading in text
    config.write_text(text.replace(heading, heading + toml + "\n"))


async def submitted(world: World, *arguments: str) -> str:
    done = await world.product("run", *arguments, "--background", "--json")
    job_id: str = done.json()["job_id"]
    return job_id


def system_of(request: ApiRequest) -> str:
    return json.dumps(request.body.get("system"))


def has_tool_result(request: ApiRequest) -> bool:
    return "tool_result" in json.dumps(request.body)


class Tools:
    """A model that calls a tool again and again, and ends when it reads the message."""

    def __init__(self) -> None:
        self.calls_behind_the_message = 0
        self.is_sent = False

    def __call__(self, request: ApiRequest) -> Reply:
        if "and also the nodes" in request.newest:
            return answer("pods and nodes")
        if self.is_sent:
            self.calls_behind_the_message += 1
        if "begin" in json.dumps(request.body["messages"]):
            return bash("echo step; sleep 0.5")
        return answer("as you wish")


@pytest.mark.parametrize("_run", range(SEND_RUNS))
async def test_a_message_is_acted_upon_by_the_next_tool_boundary(
    world: World, api: MessagesApi, _run: int
) -> None:
    await world.add_agent("infra", *BYPASS)
    api.decide = tools = Tools()
    with trio.fail_after(90):
        job_id = await submitted(world, "infra", "begin")
        await api.wait_for(has_tool_result)
        sent = await world.product("send", job_id, "and also the nodes", "--json")
        tools.is_sent = True
        job = (await world.product("wait", job_id, "--json")).json()
    assert (sent.exit_code, sent.json()["outcome"]) == (0, "delivered"), sent
    assert job["result"]["result"] == "pods and nodes"
    assert "earlier_results" not in job["result"]
    assert tools.calls_behind_the_message == 0
    [message] = (await world.product("job", job_id, "--json")).json()["messages"]
    assert message["text"] == "and also the nodes"
    assert message["delivered_at"] >= message["sent_at"]
    later = await world.product("send", job_id, "too late", "--json")
    assert later.exit_code == 1
    assert later.json()["outcome"] == "already_terminal"
    assert later.json()["session_id"] == job["session_id"]
    await world.nothing_left(within_s=3)


async def test_a_message_to_a_pending_job_goes_with_its_first_turn(
    world: World, api: MessagesApi
) -> None:
    await world.add_agent("infra", *BYPASS)
    config = world.home / ".config" / "agent-dispatch" / "agents.toml"
    config.write_text(config.read_text() + "\n[settings]\nmax_concurrency = 1\n")
    may_end = trio.Event()
    api.decide = script(
        ("and also the nodes", answer("pods and nodes")),
        ("take your time", Held(may_end, answer("done"))),
        ("begin", bash("echo step; sleep 0.5")),
    )
    with trio.fail_after(90):
        first = await submitted(world, "infra", "take your time")
        await api.wait_for(lambda request: True)
        second = await submitted(world, "infra", "begin")
        sent = await world.product("send", second, "and also the nodes", "--json")
        may_end.set()
        job = (await world.product("wait", second, "--json")).json()
        await world.product("wait", first)
    assert sent.json() == {"job_id": second, "outcome": "queued"}
    assert job["result"]["result"] == "pods and nodes"
    [message] = job["messages"]
    assert message["delivered_at"] >= job["started_at"]


async def test_a_message_to_a_job_whose_worker_is_killed_says_how_to_go_on(
    world: World, api: MessagesApi, witness: Witness
) -> None:
    await world.add_agent("infra", *BYPASS)
    api.decide = script(("take your time", bash(witness.command)))
    jobs = world.home / ".config" / "agent-dispatch" / "jobs"
    sent: list[Finished] = []
    with trio.fail_after(90):
        job_id = await submitted(world, "infra", "take your time")
        await witness.begun()

        async def send() -> None:
            sent.append(await world.product("send", job_id, "and also the nodes", "--json"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            while not list((jobs / "live").glob(f"{job_id}.mail")):  # noqa: ASYNC110
                await trio.sleep(0.02)
            os.kill(holder_of(jobs, job_id, "worker"), signal.SIGKILL)
        await witness.ended()
        job = (await world.product("job", job_id, "--json")).json()
    assert (job["status"], job["error_type"]) == ("failed", "lost")
    answer = sent[0].json()
    assert (sent[0].exit_code, answer["outcome"]) == (1, "already_terminal")
    assert answer["session_id"] == job["session_id"]
    assert job["session_id"] in answer["next"]
    await world.nothing_left(within_s=3)


async def test_a_call_takes_messages_from_another_process(world: World, api: MessagesApi) -> None:
    await world.add_agent("infra", *BYPASS)
    api.decide = Tools()
    answers: list[dict[str, Any]] = []
    with trio.fail_after(90):
        async with world.serving() as client, trio.open_nursery() as nursery:

            async def dispatch() -> None:
                answers.append(await client.call("dispatch", agent="infra", task="begin"))

            nursery.start_soon(dispatch)
            await api.wait_for(has_tool_result)
            sent = await world.product("send", "last", "and also the nodes", "--json")
    assert sent.json()["outcome"] == "delivered"
    assert [one["result"] for one in answers] == ["pods and nodes"]


async def test_what_an_interrupted_agent_said_is_kept_and_its_session_goes_on(
    world: World, api: MessagesApi
) -> None:
    await world.add_agent("infra", *BYPASS)
    api.decide = script(
        ("carry on", answer("carried on")), ("take your time", bash("echo a; sleep 600"))
    )
    with trio.fail_after(90):
        async with world.serving() as client:
            submission = await client.call("dispatch_async", agent="infra", task="take your time")
            job_id = submission["job_id"]
            await api.wait_for(lambda request: True)
            cancelled = await client.call("dispatch_cancel", job_id=job_id, keep=True)
            job = await client.call("dispatch_status", job_id=job_id)
        assert cancelled == {"job_id": job_id, "outcome": "cancelled"}
        assert job["status"] == "cancelled"
        assert (job["result"]["success"], job["result"]["error_type"]) == (False, "cancelled")
        session = job["result"]["session_id"]
        resumed = await world.product("run", "infra", "carry on", "--session", session, "--json")
    assert resumed.json()["result"] == "carried on"
    assert resumed.json()["session_id"] == session
    last = api.requests[-1].body["messages"]
    assert "take your time" in json.dumps(last)
    await world.nothing_left(within_s=3)


async def test_an_agent_interrupted_at_once_has_a_session_to_resume(
    world: World, api: MessagesApi
) -> None:
    await world.add_agent("infra", *BYPASS)
    api.decide = script(
        ("carry on", answer("carried on")), ("take your time", bash("echo a; sleep 600"))
    )
    with trio.fail_after(90):
        job_id = await submitted(world, "infra", "take your time")
        while True:
            job = (await world.product("job", job_id, "--json")).json()
            if job["status"] == "running":
                break
        done = await world.product("cancel", job_id, "--keep", "--json")
        job = (await world.product("job", job_id, "--json")).json()
        session = job["result"]["session_id"]
        resumed = await world.product("run", "infra", "carry on", "--session", session, "--json")
    assert done.json()["outcome"] == "cancelled"
    assert resumed.json()["result"] == "carried on"


async def test_model_and_effort_of_a_call_reach_the_api(world: World, api: MessagesApi) -> None:
    await world.add_agent("infra", "--model", "claude-haiku-4-5")
    with trio.fail_after(90):
        await world.product("run", "infra", "hello")
        await world.product(
            "run", "infra", "hello", "--model", "claude-opus-4-5", "--effort", "low"
        )
        await world.product("update", "infra", "--effort", "high", "--model", "claude-opus-4-5")
        await world.product("run", "infra", "hello")
    by_agent, by_call, by_table = (request.body for request in api.requests)
    assert by_agent["model"].startswith("claude-haiku-4-5")
    assert by_call["model"].startswith("claude-opus-4-5")
    assert by_call["output_config"]["effort"] == "low"
    assert by_table["output_config"]["effort"] == "high"


@pytest.mark.parametrize(("toml", "left"), [('["Bash", "Read"]', {"Bash", "Read"}), ("[]", set())])
async def test_only_the_tools_of_the_table_exist(
    world: World, api: MessagesApi, toml: str, left: set[str]
) -> None:
    await world.add_agent("infra")
    write_table(world, "infra", f"tools = {toml}")
    with trio.fail_after(60):
        result = (await world.product("run", "infra", "hello", "--json")).json()
    assert result["success"], result
    assert set(api.requests[0].tools) - {"DeferredToolPlaceholder"} == left


async def test_an_agent_without_tools_can_still_fit_its_answer_to_a_schema(
    world: World, api: MessagesApi
) -> None:
    await world.add_agent("infra")
    write_table(world, "infra", "tools = []")
    schema = world.root / "schema.json"
    schema.write_text('{"type": "object", "properties": {"n": {"type": "integer"}}}')
    api.decide = script(("count", call("StructuredOutput", n=3)))
    with trio.fail_after(60):
        done = await world.product("run", "infra", "count", "--json-schema", str(schema), "--json")
    assert done.json()["parsed_result"] == {"n": 3}


async def test_the_fallback_model_answers_when_the_model_is_overloaded(
    world: World, api: MessagesApi
) -> None:
    await world.add_agent("infra", "--model", "claude-opus-4-5")
    write_table(world, "infra", 'fallback_model = "claude-haiku-4-5"')

    def decide(request: ApiRequest) -> Reply:
        if request.body["model"].startswith("claude-opus"):
            return ApiError(status=529)
        return answer("by the other one")

    api.decide = decide
    with trio.fail_after(120):
        result = (await world.product("run", "infra", "hello", "--json")).json()
    assert (result["success"], result["result"]) == (True, "by the other one")


async def test_instructions_are_part_of_each_run_and_those_of_now_in_a_resumed_one(
    world: World, api: MessagesApi
) -> None:
    await world.add_agent("infra")
    write_table(world, "infra", 'instructions = "- Speak of cats.\\nAlways."')
    config = world.home / ".config" / "agent-dispatch" / "agents.toml"
    with trio.fail_after(120):
        first = (await world.product("run", "infra", "hello", "--json")).json()
        config.write_text(config.read_text().replace("cats", "dogs"))
        resume = ("run", "infra", "go on", "--session", first["session_id"], "--json")
        await world.product(*resume)
        text = "".join(
            line
            for line in config.read_text().splitlines(keepends=True)
            if not line.startswith("instructions")
        )
        config.write_text(text)
        await world.product(*resume)
    systems = [system_of(request) for request in api.requests]
    assert "- Speak of cats.\\nAlways." in systems[0]
    assert "Speak of dogs." in systems[1]
    assert "cats" not in systems[1]
    assert "Speak of" not in systems[2]


async def test_variables_that_are_not_allowed_do_not_reach_the_agents_commands(
    world: World, api: MessagesApi, tmp_path: Path
) -> None:
    await world.add_agent("infra", *BYPASS)
    write_table(world, "infra", 'env_allow = ["APP_*"]\nenv_deny = ["APP_TOKEN"]')
    world.environ |= {
        "APP_MODE": "fast",
        "APP_TOKEN": "t0ken",
        "OTHER_SECRET": "s3cret",
        "TRACEPARENT": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "TRACESTATE": "vendor=1",
    }
    found = tmp_path / "env"
    api.decide = script(("show", bash(f"env > {found}")))
    with trio.fail_after(60):
        result = (await world.product("run", "infra", "show", "--json")).json()
    assert result["success"], result
    env = dict(line.split("=", 1) for line in found.read_text().splitlines() if "=" in line)
    assert env["APP_MODE"] == "fast"
    assert not {"APP_TOKEN", "OTHER_SECRET"} & env.keys()
    assert env["TRACEPARENT"] == world.environ["TRACEPARENT"]
    assert env["TRACESTATE"] == "vendor=1"


def _servers(api: MessagesApi) -> list[str]:
    return [tool for tool in api.requests[-1].tools if "agent-dispatch" in tool]


async def test_an_agent_without_nesting_has_no_server_of_ours_under_either_name(
    world: World, api: MessagesApi
) -> None:
    await world.add_agent("infra")
    await world.product("init")
    plugin = world.root / "plugin"
    (plugin / ".claude-plugin").mkdir(parents=True)
    (plugin / ".claude-plugin" / "plugin.json").write_text(
        json.dumps({"name": "agent-dispatch", "version": "1.0.0", "description": "x"})
    )
    command = world.product_command("serve")
    server: dict[str, Any] = {"command": command[0], "args": command[1:]}
    (plugin / ".mcp.json").write_text(json.dumps({"mcpServers": {"agent-dispatch": server}}))
    market = world.root / ".claude-plugin"
    market.mkdir()
    (market / "marketplace.json").write_text(
        json.dumps(
            {
                "name": "market",
                "owner": {"name": "me"},
                "plugins": [{"name": "agent-dispatch", "source": "./plugin", "description": "x"}],
            }
        )
    )
    for arguments in (
        ("plugin", "marketplace", "add", str(world.root)),
        ("plugin", "install", "agent-dispatch@market"),
    ):
        done = await world.claude(*arguments)
        assert done.exit_code == 0, done
    with trio.fail_after(120):
        await world.product("run", "infra", "hello")
        with_both = _servers(api)
        write_table(world, "infra", "nested = false")
        await world.product("run", "infra", "hello")
    assert {name.split("__")[1] for name in with_both} == {
        "agent-dispatch",
        "plugin_agent-dispatch_agent-dispatch",
    }
    assert _servers(api) == []


async def test_an_exclusive_agent_cannot_be_dispatched_from_within_itself(
    world: World, api: MessagesApi
) -> None:
    await world.add_agent("infra", *BYPASS)
    write_table(world, "infra", "exclusive = true")
    again = shlex.join(world.product_command("run", "infra", "again", "--json"))
    api.decide = script(("begin", bash(f"{again} > inner.json; true")))
    with trio.fail_after(90):
        outer = (await world.product("run", "infra", "begin", "--json")).json()
        inner = json.loads((world.root / "infra" / "inner.json").read_text())
        after = (await world.product("run", "infra", "hello", "--json")).json()
    assert outer["success"], outer
    assert (inner["success"], inner["error_type"]) == (False, "recursion")
    assert after["success"]
