from pathlib import Path

import msgspec
import pytest

from agent_dispatch.cli.run.commands import DEFAULT_TASK
from agent_dispatch.model.dispatch import DispatchResult, ErrorType, Evidence
from tests.cli.support import ANSWER, FakeService, World


def failure(error_type: ErrorType, **fields: object) -> DispatchResult:
    return DispatchResult(
        agent="infra", success=False, result="", error="it went wrong", error_type=error_type
    )


def test_the_answer_is_all_that_stdout_gets(world: World) -> None:
    assert world.run("run", "infra", "how is it?") == 0
    assert world.out == "All is well.\n"
    assert "2 turns, 5.0 s, $0.02, session 1111" in world.err


def test_json_is_the_result_as_the_mcp_tool_answers_it(world: World) -> None:
    assert world.run("run", "infra", "how is it?", "--json") == 0
    assert msgspec.json.decode(world.out, type=DispatchResult) == ANSWER
    assert "error" not in world.out


def test_one_run_has_a_model_and_an_effort_of_its_own(world: World) -> None:
    assert world.run("run", "infra", "x", "--model", "opus", "--effort", "high") == 0
    assert [(r.model, r.effort) for r in world.service.requests] == [("opus", "high")]


def test_a_run_asks_for_the_verify_command(world: World) -> None:
    assert world.run("run", "infra", "x", "--verify") == 0
    assert world.run("run", "infra", "x") == 0
    assert [request.verify for request in world.service.requests] == [True, False]


def test_test_has_a_task_of_its_own(world: World) -> None:
    assert world.run("test", "infra") == 0
    assert world.run("test", "infra", "say hello") == 0
    assert [request.task for request in world.service.requests] == [DEFAULT_TASK, "say hello"]


@pytest.mark.parametrize(
    ("error_type", "status"),
    [
        (ErrorType.TIMEOUT, 124),
        (ErrorType.CLI_ERROR, 1),
        (ErrorType.PERMISSION, 1),
        (ErrorType.CANCELLED, 1),
    ],
)
def test_a_run_that_failed_has_a_status_of_its_kind(
    world: World, error_type: ErrorType, status: int
) -> None:
    world.service = FakeService(failure(error_type))
    assert world.run("run", "infra", "x") == status
    assert world.out == ""
    assert f"error ({error_type}): it went wrong\n" in world.err
    assert world.run("run", "infra", "x", "--json") == status
    assert msgspec.json.decode(world.out)["error_type"] == error_type


def test_what_there_is_to_know_about_an_answer_is_said_beside_it(world: World) -> None:
    world.service = FakeService(
        msgspec.structs.replace(
            ANSWER,
            denied_tools=["Bash", "Write"],
            hint="grant them with an update",
            budget_exceeded=True,
            left_running=3,
            earlier_results=["one"],
            cached=True,
            evidence=Evidence(
                tool_calls=3, files_changed=["a", "b"], commits=["1" * 40], read_only=False
            ),
        )
    )
    world.run("run", "infra", "x")
    assert world.out == "All is well.\n"
    for remark in (
        "tools denied: Bash, Write",
        "hint: grant them with an update",
        "more than its cap",
        "processes running; they were ended: 3",
        "1 earlier answer",
        "3 tool calls, 2 changed files, 1 commit",
        "cached",
    ):
        assert remark in world.err


def test_an_answer_is_verbatim_for_a_pipe_and_harmless_for_a_terminal(world: World) -> None:
    world.service = FakeService(msgspec.structs.replace(ANSWER, result="\x1b[2Jtext\r\nmore\n"))
    world.run("run", "infra", "x")
    assert world.out == "\x1b[2Jtext\r\nmore\n"
    world.terminal = True
    world.run("run", "infra", "x")
    assert world.out == "text\nmore\n"


def test_a_dash_reads_the_task_from_stdin(world: World) -> None:
    world.stdin = "- first\n- zweitens: Äpfel\n"
    assert world.run("run", "infra", "-") == 0
    assert world.run("test", "infra", "-") == 0
    assert {request.task for request in world.service.requests} == {"- first\n- zweitens: Äpfel\n"}


def test_stdin_that_is_no_text_is_refused(world: World) -> None:
    world.stdin = b"ok so far \xff\xfe"
    assert world.run("run", "infra", "-") == 1
    assert "not UTF-8 (byte 10)" in world.err
    assert world.service.requests == []


def test_stdin_without_an_end_is_refused_in_time(world: World) -> None:
    world.stdin = b"x" * (32 * 2**20 + 1)
    assert world.run("run", "infra", "-") == 1
    assert "longer than 32 MiB" in world.err


def test_each_message_is_a_line_when_streaming(world: World) -> None:
    world.service = FakeService(
        progress=[(0, "Using tool: Read"), (0, "Using tool: Bash"), (0, "Using tool: Bash")]
    )
    world.run("test", "infra", "--stream")
    progress = [line for line in world.err.splitlines() if line.startswith("Using")]
    assert progress == ["Using tool: Read", "Using tool: Bash"]


def test_a_file_gets_few_lines_and_the_last_one_surely(world: World) -> None:
    world.service = FakeService(progress=[(0, f"step {n}") for n in range(500)])
    world.run("run", "infra", "x")
    progress = [line for line in world.err.splitlines() if line.startswith("step")]
    assert len(progress) <= 2
    assert progress[-1] == "step 499"


def test_a_terminal_gets_one_line_that_is_gone_at_the_end(world: World) -> None:
    world.terminal = True
    world.service = FakeService(progress=[(0.15, "a message\x1b[2J\nin two lines"), (0.15, "next")])
    world.run("run", "infra", "x")
    progress, wiped, rest = world.err.rpartition("\r\x1b[J")
    assert progress.startswith("\r  0 s  ")
    assert "a message in two lines" in progress
    assert "\n" not in progress
    assert wiped
    assert "2 turns" in rest


def test_a_session_is_continued(world: World) -> None:
    session = "11111111-1111-4111-8111-111111111111"
    assert world.run("run", "infra", "go on", "--session", session) == 0
    assert world.service.requests[0].session_id == session


def test_a_schema_is_read_from_a_file(world: World, tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text('{"type": "object"}\n')
    assert world.run("run", "infra", "x", "--json-schema", str(tmp_path / "schema.json")) == 0
    assert world.service.requests[0].json_schema == '{"type": "object"}'
    assert world.run("run", "infra", "x", "--json-schema", "nowhere.json") == 1
    assert "The schema in nowhere.json cannot be read" in world.err


def test_a_schema_that_is_empty_is_not_left_out(world: World, tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text("\n")
    assert world.run("run", "infra", "x", "--json-schema", str(tmp_path / "schema.json")) == 1
    assert "schema.json is empty" in world.err
    assert world.service.requests == []


def test_stdin_is_read_for_one_thing_only(world: World) -> None:
    world.stdin = "what is down?"
    assert world.run("run", "infra", "-", "--json-schema", "-") == 2
    assert "The task and the schema cannot both come on stdin" in world.err
    assert world.service.requests == []
