import json
import os
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from agent_dispatch.cli.demo import stand_in
from agent_dispatch.model.dispatch import DispatchResult, ErrorType
from agent_dispatch.model.next_step import DOCTOR, NextStep, StepKind, run
from tests.cli.support import ANSWER, FakeService, World


def test_the_stand_in_is_what_answers_and_it_is_said(world: World) -> None:
    world.service = FakeService(progress=[(0, "Using tool: Read")])
    assert world.run("demo") == 0
    assert world.service.claude == [sys.executable, "-I", "-S", stand_in.__file__]
    assert "stand-in plays Claude Code" in world.out
    assert "costs nothing" in world.out
    for shown in ("tides: ", "ferry: ", "## Goal", "All is well.", "Cost: $0.02", "Time: 5.0 s"):
        assert shown in world.out
    assert "Using tool: Read\n" in world.err


def test_the_real_one_is_said_to_cost_money(world: World) -> None:
    assert world.run("demo", "--real") == 0
    assert world.service.claude is None
    assert "costs what a small session costs" in world.out
    assert "stand-in" not in world.out


def test_nothing_of_the_users_is_touched_and_nothing_is_left(world: World) -> None:
    world.write_config("[agents.mine\n")
    world.run("demo")
    place = Path(world.service.environ["AGENT_DISPATCH_CONFIG"]).parents[1]
    assert place != world.config.parent
    assert Path(world.service.environ["AGENT_DISPATCH_JOBS_DIR"]).parent == place
    assert not place.exists()
    assert world.service.environ["HOME"] == world.environ["HOME"]
    assert world.config.read_text() == "[agents.mine\n"


def test_json_is_the_result_and_nothing_else(world: World) -> None:
    assert world.run("demo", "--json") == 0
    assert msgspec.json.decode(world.out, type=DispatchResult) == ANSWER


@pytest.mark.parametrize(("error_type", "status"), [(ErrorType.AUTH, 1), (ErrorType.NOT_FOUND, 1)])
def test_a_demonstration_that_failed_says_why(
    world: World, error_type: ErrorType, status: int
) -> None:
    world.service = FakeService(
        DispatchResult(
            agent="tides", success=False, result="", error="log in first", error_type=error_type
        )
    )
    assert world.run("demo", "--real") == status
    assert "log in first" in world.err


def test_the_stand_in_speaks_as_claude_does(tmp_path: Path) -> None:
    (tmp_path / stand_in.TABLE).write_text("day,first,second\nFriday,01:02,13:14\n")
    asked = {"type": "user", "message": {"role": "user", "content": "And on Friday?"}}
    said = subprocess.run(
        [sys.executable, "-I", "-S", stand_in.__file__, "-p", "--session-id=abc"],
        input=json.dumps(asked) + "\n",
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    events = [json.loads(line) for line in said.splitlines()]
    assert [event["type"] for event in events] == [
        "system",
        "assistant",
        "assistant",
        "user",
        "assistant",
        "result",
    ]
    assert {event["session_id"] for event in events} == {"abc"}
    result = events[-1]
    assert result["result"] == "High water on Friday is at 01:02 and 13:14 (from tides.csv)."
    assert (result["is_error"], result["num_turns"], result["total_cost_usd"]) == (False, 2, 0.0)


def test_a_day_that_the_table_lacks_is_told(tmp_path: Path) -> None:
    table = tmp_path / "tides.csv"
    table.write_text("day,first,second\nMonday,1,2\n")
    assert stand_in.find_answer("On Sunday?", table) == "tides.csv says nothing about that day."


def test_the_whole_demonstration_runs_and_cleans_up(world: World) -> None:
    temporary = world.home / "tmp"
    temporary.mkdir()
    ended = subprocess.run(
        [sys.executable, "-m", "agent_dispatch", "demo"],
        env=world.environ | {"TMPDIR": str(temporary)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    assert "High water on Tuesday is at 05:01 and 17:24 (from tides.csv)." in ended.stdout
    assert "Cost: $0.00 (a stand-in)" in ended.stdout
    assert re.search(r"^tides · started · job [0-9a-f]{8}$", ended.stderr, re.MULTILINE)
    assert re.search(r"^tides · Read: .*tides\.csv", ended.stderr, re.MULTILINE)
    assert os.listdir(temporary) == []
    assert not world.config.exists()


@pytest.mark.parametrize(
    ("environ", "last"),
    [
        ({}, "{program} init"),
        ({"PATH": "{bin}"}, "agent-dispatch init"),
        ({"PATH": "{bin}", "UV_RUN_RECURSION_DEPTH": "1"}, "uv run agent-dispatch init"),
    ],
)
def test_the_last_line_of_a_demo_is_a_command_that_works_here(
    world: World, environ: dict[str, str], last: str
) -> None:
    world.install_claude()
    names = {"program": world.program, "bin": str(Path(world.program).parent)}
    world.environ["PATH"] = "/usr/bin:/bin"
    world.environ |= {name: value.format(**names) for name, value in environ.items()}
    assert world.run("demo") == 0
    assert world.out.splitlines()[-1].strip() == last.format(**names)


def test_a_demo_that_failed_names_no_command_about_what_is_gone(tmp_path: Path) -> None:
    session = "11111111-1111-4111-8111-111111111111"
    about_what_is_gone = [
        NextStep(kind=StepKind.RESUME, agent="tides", session_id=session, directory="/tmp/x/tides"),
        NextStep(kind=StepKind.MORE_TIME, agent="tides", timeout_s=240),
        run("agent-dispatch update tides --allow Read", "tides"),
        NextStep(kind=StepKind.WAIT, job_id="0190a7b0c1d27abc8def0123456789ab"),
    ]
    failed = DispatchResult(
        agent="tides",
        success=False,
        result="",
        error="It did not end within 120 s.",
        next_steps=[*about_what_is_gone, DOCTOR],
        error_type=ErrorType.TIMEOUT,
        session_id=session,
        job_id="0190a7b0c1d27abc8def0123456789ab",
    )
    world = World(tmp_path, FakeService(failed))
    assert world.run("demo", "--real") == 124
    assert "It did not end within 120 s." in world.err
    assert "tip: agent-dispatch doctor" in world.err
    for gone in ("tides &&", "update tides", session, "0190a7b0", "run tides"):
        assert gone not in world.err
