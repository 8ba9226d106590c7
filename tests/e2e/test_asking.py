"""A call without a permission asks a person, and the real CLI does what the answer says."""

import json
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.e2e.messages_api import MessagesApi, answer, bash, call, dispatch, script
from tests.e2e.world import World

pytestmark = pytest.mark.e2e

COMMAND = "echo once >> made.txt"
INPUT = {"command": COMMAND, "description": "as the script says"}


async def question(world: World) -> dict[str, Any]:
    """Wait until an agent asks something, as a person who looks now and then."""
    while not (asked := (await world.product("questions", "--json")).json()):  # noqa: ASYNC110
        await trio.sleep(0.2)
    (row,) = asked
    assert isinstance(row, dict)
    return row


def lines_in(directory: Path) -> list[str]:
    made = directory / "made.txt"
    return made.read_text().splitlines() if made.exists() else []


def ask(world: World, *, seconds: float = 300) -> None:
    """Let every agent ask."""
    config = world.home / ".config" / "agent-dispatch" / "agents.toml"
    settings = f'\n[settings]\npermission_prompts = "ask"\nquestion_seconds = {seconds}\n'
    config.write_text(config.read_text() + settings)


@pytest.mark.parametrize(("verdict", "lines"), [("allow", ["once"]), ("deny", [])])
async def test_a_call_waits_for_the_answer_of_another_process(
    verdict: str, lines: list[str], world: World, api: MessagesApi
) -> None:
    directory = await world.add_agent("infra")
    ask(world)
    api.decide = script(("make a file", bash(COMMAND)), otherwise=answer("done"))
    results: list[dict[str, Any]] = []

    async def run() -> None:
        done = await world.product("run", "infra", "make a file", "--json")
        results.append(done.json())

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            asked = await question(world)
            assert lines_in(directory) == []
            job = (await world.product("job", asked["job_id"], "--json")).json()
            answered = (await world.product("answer", asked["job_id"], verdict, "--json")).json()
        told = (await world.product("job", asked["job_id"], "--json")).json()
    assert (asked["tool"], asked["input"], asked["agent"]) == ("Bash", INPUT, "infra")
    assert asked["state"] == "open"
    assert (job["status"], job["question"]["id"]) == ("running", asked["id"])
    assert answered == {"job_id": asked["job_id"], "outcome": "answered"}
    assert results[0]["success"]
    assert lines_in(directory) == lines
    assert [(each["answer"], each["answered_by"]) for each in told["questions"]] == [
        (verdict, "cli")
    ]
    assert "question" not in told
    # What a person has decided needs no advice.
    assert "update infra" not in results[0].get("hint", "")


async def test_a_question_that_is_answered_later_resumes_and_runs_once(
    world: World, api: MessagesApi
) -> None:
    directory = await world.add_agent("infra")
    ask(world, seconds=1)
    api.decide = script(
        ("has allowed it now", bash(COMMAND)),
        ("nobody was there to allow it", answer("made.txt is missing")),
        ("make a file", bash(COMMAND)),
        otherwise=answer("done"),
    )
    with trio.fail_after(90):
        first = (await world.product("run", "infra", "make a file", "--json")).json()
        asked = await question(world)
        answered = (await world.product("answer", asked["job_id"], "allow", "--json")).json()
        again = await world.product("answer", asked["job_id"], "allow", "--question", asked["id"])
        done = (
            await world.product("wait", answered["job_id"], "--json", "--timeout-seconds", "60")
        ).json()
        left = (await world.product("questions", "--json")).json()
    assert first["result"] == "made.txt is missing"
    assert f"agent-dispatch answer {first['job_id'][-8:]} allow" in first["hint"]
    assert asked["state"] == "unanswered"
    assert answered["outcome"] == "resumed"
    assert again.exit_code == 1
    assert done["status"] == "done"
    assert done["result"]["session_id"] == first["session_id"]
    assert lines_in(directory) == ["once"]
    assert left == []


async def test_the_models_own_question_is_not_put_to_a_person(
    world: World, api: MessagesApi
) -> None:
    await world.add_agent("infra")
    ask(world)
    options = [{"label": "red", "description": "r"}, {"label": "blue", "description": "b"}]
    questions = [{"question": "Which?", "header": "Colour", "options": options}]

    api.decide = script(
        ("choose", call("AskUserQuestion", questions=questions)),
        ("put the question into your answer", answer("Which colour?")),
        otherwise=answer("it was something else"),
    )
    with trio.fail_after(60):
        result = (await world.product("run", "infra", "choose", "--json")).json()
        left = (await world.product("questions", "--json")).json()
    assert result["result"] == "Which colour?"
    assert left == []


async def test_a_session_without_a_person_gets_the_answer_of_an_agent_that_asks(
    world: World, api: MessagesApi
) -> None:
    await world.product("init")
    await world.add_agent("infra")
    ask(world, seconds=2)
    api.decide = script(
        ("nobody was there to allow it", answer("made.txt is missing")),
        ("make a file, agent", bash(COMMAND)),
        ("made.txt is missing", answer("the agent could not")),
        ("delegate this", dispatch("infra", "make a file, agent")),
        otherwise=answer("something else"),
    )
    flags = ("-p", "--output-format=json", "--allowedTools=mcp__agent-dispatch")
    with trio.fail_after(90):
        outer = await world.claude(*flags, stdin="delegate this")
    assert json.loads(outer.stdout)["result"] == "the agent could not"
