"""What an agent did is measured, and its own `verify` command decides, with the real CLI."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.e2e.messages_api import MessagesApi, ToolCall, ToolCalls, answer, bash, call, script
from tests.e2e.world import World

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(shutil.which("git") is None, reason="needs git"),
]
ANYTHING = ("--permission-mode", "bypassPermissions")
COMMIT = "git -c user.name=a -c user.email=a@b.invalid commit -qam"


async def git(world: World, directory: Path, *words: str) -> str:
    author = ("-c", "user.name=a", "-c", "user.email=a@b.invalid")
    done = await world.run("git", *author, *words, cwd=directory)
    assert done.exit_code == 0, done
    return done.stdout.strip()


async def repository(world: World, *options: str) -> Path:
    directory = await world.add_agent("infra", *options)
    (directory / "notes.txt").write_text("one\n")
    await git(world, directory, "init", "-q")
    await git(world, directory, "add", ".")
    await git(world, directory, "commit", "-qm", "begin")
    return directory


async def test_files_commits_and_the_calls_of_subagents_are_evidence(
    world: World, api: MessagesApi
) -> None:
    directory = await repository(world, *ANYTHING)
    (directory / "dirty.txt").write_text("mine\n")
    made = directory / "made.txt"
    write = ToolCall("Write", {"file_path": str(made), "content": "made\n"})
    read = ToolCall("Read", {"file_path": str(directory / "notes.txt")})
    helper = {"description": "help", "prompt": "please count", "subagent_type": "general-purpose"}
    api.decide = script(
        ("do it all", ToolCalls(calls=(read, write))),
        ("File created", bash(f"echo two >> notes.txt && {COMMIT} more && echo went on")),
        ("went on", call("Agent", **helper)),
        ("please count", call("Agent", **helper | {"prompt": "count below me"})),
        ("count below me", bash("echo counted > counted.txt && echo that is it")),
        ("that is it", answer("counted it")),
        ("counted it", answer("all of it is done")),
    )
    with trio.fail_after(60):
        done = await world.product("run", "infra", "do it all", "--json")
    result = done.json()
    assert result["success"], result
    evidence = result["evidence"]
    assert evidence["tools"] == {"Read": 1, "Write": 1, "Bash": 2, "Agent": 2}
    assert (evidence["tool_calls"], evidence["read_only"]) == (6, False)
    assert evidence["files_changed"] == ["counted.txt", "made.txt", "notes.txt"]
    assert evidence["commits"] == [await git(world, directory, "rev-parse", "HEAD")]
    assert "tool call" not in result.get("hint", "")


async def test_a_denied_call_is_no_evidence_and_a_claim_without_one_is_told(
    world: World, api: MessagesApi
) -> None:
    directory = await repository(world)
    (directory / "sub").mkdir()
    api.decide = script(
        ("make a file", bash("touch sub/made")),
        ("lie to me", answer("I've fixed the bug, and all tests pass.")),
        otherwise=answer("I was not allowed to"),
    )
    with trio.fail_after(60):
        denied = (await world.product("run", "infra", "make a file", "--json")).json()
        lie = (await world.product("run", "infra", "lie to me", "--json")).json()
    assert denied["evidence"] == {"tool_calls": 0, "read_only": False}
    assert lie["evidence"] == {"tool_calls": 0, "read_only": True}
    assert "made no tool call" in lie["hint"]


async def test_only_a_run_that_read_is_answered_from_the_cache(
    world: World, api: MessagesApi
) -> None:
    directory = await repository(world, *ANYTHING)
    read = call("Read", file_path=str(directory / "notes.txt"))
    api.decide = script(
        ("show the notes", read),
        ("list the files", bash("ls")),
        otherwise=answer("there is one line"),
    )
    with trio.fail_after(90):
        async with world.serving() as client:
            answers = {
                task: [await client.call("dispatch", agent="infra", task=task) for _ in range(2)]
                for task in ("show the notes", "list the files")
            }
    for task, (first, again) in answers.items():
        is_kept = task == "show the notes"
        assert first["evidence"]["read_only"] is is_kept
        assert again.get("cached", False) is is_kept
        assert (again["job_id"] == first["job_id"]) is is_kept


async def test_work_that_is_not_verified_is_repaired_in_the_same_process(
    world: World, api: MessagesApi
) -> None:
    directory = await world.add_agent("infra", *ANYTHING)
    _set(world, verify=["grep", "-n", "good", "work.txt"], verify_attempts=2)
    api.decide = script(
        ("do the work", bash("echo bad > work.txt; echo began")),
        ("began", answer("I have done the work")),
        ("did not pass", bash("echo good > work.txt; echo repaired")),
        ("repaired", answer("now it is good")),
    )
    with trio.fail_after(90):
        result = (await world.product("run", "infra", "do the work", "--verify", "--json")).json()
    assert (result["success"], result["verified"]) == (True, True), result
    assert result["verify_output"] == "1:good\n"
    assert (result["result"], result["earlier_results"]) == (
        "now it is good",
        ["I have done the work"],
    )
    assert result["num_turns"] == 4
    assert result["evidence"]["tools"] == {"Bash": 2}
    assert (directory / "work.txt").read_text() == "good\n"
    # One process has one session; a second one would have sent the first prompt again.
    tasks = [request for request in api.requests if "do the work" in request.newest]
    assert len(tasks) == 1
    await world.nothing_left(within_s=3)


async def test_work_that_stays_wrong_is_unverified_and_its_cost_is_a_sum(
    world: World, api: MessagesApi
) -> None:
    await world.add_agent("infra", *ANYTHING)
    api.decide = script(otherwise=answer("here you are"))
    with trio.fail_after(90):
        once = (await world.product("run", "infra", "do the work", "--json")).json()
        _set(world, verify=["sh", "-c", "echo it is wrong; exit 1"], verify_attempts=2)
        done = await world.product("run", "infra", "do the work", "--verify", "--json")
    result = done.json()
    assert done.exit_code == 1
    assert (result["error_type"], result["verified"]) == ("unverified", False)
    assert result["error"].endswith("it is wrong")
    assert result["num_turns"] == 2 * once["num_turns"]
    assert result["cost_usd"] > once["cost_usd"]


def _set(world: World, **values: Any) -> None:
    config = world.home / ".config/agent-dispatch/agents.toml"
    lines = (f"{key} = {json.dumps(value)}\n" for key, value in values.items())
    config.write_text(config.read_text() + "".join(lines))
