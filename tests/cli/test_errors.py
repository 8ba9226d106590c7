"""The block of an error: one line on what happened, then commands, at the end of stderr."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_dispatch.cli.errors import MAX_LINE_CHARS, split_message
from agent_dispatch.errors import InvalidRequestError
from agent_dispatch.model.dispatch import DispatchResult, ErrorType
from agent_dispatch.model.names import did_you_mean, edits
from agent_dispatch.model.next_step import DOCTOR, NextStep, StepKind
from tests.cli.support import JOB_ID, FakeService, World

SESSION = "11111111-1111-4111-8111-111111111111"


def test_a_failed_run_ends_with_one_line_and_its_tips(world: World) -> None:
    world.service = FakeService(
        DispatchResult(
            agent="infra",
            success=False,
            result="half an answer",
            error=f"The CLI gave up. {'It was slow. ' * 30}\nline one\nline two",
            error_type=ErrorType.TIMEOUT,
            session_id=SESSION,
            duration_ms=1000,
            next_steps=[
                NextStep(kind=StepKind.RESUME, agent="infra", session_id=SESSION),
                DOCTOR,
            ],
        )
    )
    assert world.run("run", "infra", "x") == 124
    assert world.out == "half an answer\n"
    *above, error, first, second = world.err.splitlines()
    assert error.startswith("error (timeout): The CLI gave up. It was slow. ")
    assert len(error) <= MAX_LINE_CHARS
    assert first == (
        f'tip: agent-dispatch run infra "Continue where you left off" --session {SESSION}'
    )
    assert second == "tip: agent-dispatch doctor"
    assert "line one" in above
    assert any(line.startswith("infra: ") for line in above)


def test_the_error_of_a_wrong_call_is_cut_and_nothing_of_it_is_lost(world: World) -> None:
    long = "x" * 300
    world.service = FakeService(InvalidRequestError(f"{long}. Then more."))
    assert world.run("run", "infra", "x") == 1
    whole, line, _ = world.err.splitlines()
    assert whole == f"{long}. Then more."
    assert line == f"error: {'x' * 190}..."


def test_long_details_of_a_failed_run_are_cut_and_a_tip_shows_all(world: World) -> None:
    frames = "\n".join(f"    at frame {number}" for number in range(30))
    world.service = FakeService(
        DispatchResult(
            agent="infra",
            success=False,
            result="",
            error=f"It ended with exit code 1.\nstderr: {'x' * 900}\n{frames}",
            error_type=ErrorType.CLI_ERROR,
            job_id=JOB_ID,
        )
    )
    assert world.run("run", "infra", "x") == 1
    facts, *details, line, tip = world.err.splitlines()
    assert facts.startswith("infra: ")
    assert len(details) == 12
    assert max(map(len, details)) == 320
    assert "... 20 lines left out" in details
    assert details[-1] == "    at frame 29"
    assert line == "error (cli_error): It ended with exit code 1."
    assert tip == f"tip: all details: `agent-dispatch job {JOB_ID[-8:]} --json`"


def test_a_wrong_argument_gets_the_help_of_its_command(world: World) -> None:
    assert world.run("import", str(world.home / "no.yaml")) == 1
    assert world.err == (
        f"error: {world.home}/no.yaml cannot be read: No such file or directory.\n"
        "tip: agent-dispatch import --help\n"
    )


def test_of_many_agents_the_line_names_some_and_the_tip_lists_all(world: World) -> None:
    names = [f"agent-number-{number}" for number in range(30)]
    world.write_config("".join(f'[agents.{name}]\ndirectory = "/x"\n' for name in names))
    assert world.run("describe", "agent-number-x") == 1
    line, tip = world.err.splitlines()
    assert "Did you mean agent-number-0?" in line
    assert "Available: agent-number-0, " in line
    assert len(line) <= MAX_LINE_CHARS
    assert tip == "tip: agent-dispatch list"


def test_a_mistyped_group_gets_the_nearest_one_and_a_tip(world: World) -> None:
    world.write_config("[groups.shop]\nmembers = []\n")
    assert world.run("group", "inspect", "shpo") == 1
    assert world.err == (
        "error: Unknown group: 'shpo'. Did you mean shop? Available: shop\n"
        "tip: agent-dispatch group list\n"
    )


@given(st.text(alphabet="ab .!\n", max_size=600))
def test_a_message_is_split_at_a_sentence_and_nothing_is_lost(message: str) -> None:
    line, rest = split_message(message, 50)
    assert len(line) <= 50
    assert "\n" not in line
    if line.endswith("..."):
        return
    assert re.sub(r"\s", "", line + rest) == re.sub(r"\s", "", message)


@pytest.mark.parametrize(
    ("one", "other", "number"),
    [
        ("infra", "infra", 0),
        ("infa", "infra", 1),
        ("infar", "infra", 1),
        ("ifnar", "infra", 2),
        ("inf", "infra", 2),
        ("in", "infra", 3),
        ("", "ab", 2),
        ("backend", "frontend", 3),
    ],
)
def test_edits_are_counted(one: str, other: str, number: int) -> None:
    assert min(edits(one, other), 3) == min(edits(other, one), 3) == number


def test_the_nearest_name_is_proposed_and_a_distant_one_is_not() -> None:
    assert did_you_mean("infar", ["inter", "infra"]) == " Did you mean infra?"
    assert did_you_mean("web", ["infra", "database"]) == ""
    assert did_you_mean("exit", ["wait"]) == did_you_mean("foo", ["job"]) == ""
