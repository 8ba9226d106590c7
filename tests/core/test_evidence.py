from typing import Any

import pytest

from agent_dispatch.core.outcome.classify import classify
from agent_dispatch.core.outcome.evidence import MAX_FILES
from agent_dispatch.core.outcome.report import Ending
from agent_dispatch.core.stream.seen import Seen
from agent_dispatch.model.dispatch import Evidence
from tests.core.builders import agent, denial, denied, init, report, result, task, text


def use(tool: str, call_id: str, parent: str | None = None, **given: Any) -> dict[str, Any]:
    block = {"type": "tool_use", "id": call_id, "name": tool, "input": given}
    return text("") | {
        "message": {"role": "assistant", "content": [block]},
        "parent_tool_use_id": parent,
    }


def came_back(
    call_id: str, *, error: bool | None = False, parent: str | None = None, decision: str = ""
) -> dict[str, Any]:
    block = {"type": "tool_result", "tool_use_id": call_id, "content": "…", "is_error": error}
    meta = [{"id": call_id, "permission_decision": {"decision": decision}}] if decision else []
    return {
        "type": "user",
        "message": {"role": "user", "content": [block]},
        "parent_tool_use_id": parent,
        "tool_result_meta": meta,
    }


def evidence(*events: dict[str, Any], **facts: Any) -> Evidence:
    found = classify(report(*events, **facts)).evidence
    assert found is not None
    return found


def test_a_run_without_calls_did_nothing() -> None:
    assert evidence(init(), text("hello"), result()) == Evidence(tool_calls=0, read_only=True)


def test_calls_are_counted_by_tool() -> None:
    seen = evidence(
        init(), use("Read", "1"), use("Read", "2"), use("Bash", "3", command="ls"), result()
    )
    assert seen == Evidence(tool_calls=3, tools={"Read": 2, "Bash": 1}, read_only=False)


def test_a_call_that_is_printed_twice_counts_once() -> None:
    assert evidence(init(), use("Read", "1"), use("Read", "1"), result()).tool_calls == 1


def test_several_calls_in_one_message_count() -> None:
    blocks = [
        {"type": "tool_use", "id": str(number), "name": "Grep", "input": {}} for number in range(4)
    ]
    message = text("") | {"message": {"role": "assistant", "content": blocks}}
    assert evidence(init(), message, result()).tools == {"Grep": 4}


def test_calls_of_subagents_count_and_may_end_read_only() -> None:
    reading = [use("Agent", "1"), use("Read", "2", parent="1"), use("Agent", "3", parent="1")]
    seen = evidence(init(), *reading, result())
    assert seen == Evidence(tool_calls=3, tools={"Agent": 2, "Read": 1}, read_only=True)
    seen = evidence(init(), *reading, use("Bash", "4", parent="3"), result())
    assert (seen.tool_calls, seen.read_only) == (4, False)


def progress(
    call_id: str,
    uses: int,
    tool: str = "",
    *,
    subtype: str = "task_progress",
    run: str = "r",
    **more: Any,
) -> dict[str, Any]:
    return task(
        subtype,
        task_id=f"task of {call_id}",
        run_id=run,
        tool_use_id=call_id,
        usage={"total_tokens": 9, "tool_uses": uses, "duration_ms": 3},
        last_tool_name=tool or None,
        **more,
    )


def test_a_reported_number_of_calls_that_are_in_the_stream_adds_none() -> None:
    calls = [use("Agent", "1"), use("Read", "2", parent="1"), progress("1", 1, "Read")]
    done = progress("1", 1, subtype="task_notification", status="completed")
    assert evidence(init(), *calls, done, result()).tool_calls == 2


def test_calls_of_subagents_of_subagents_are_counted_as_the_cli_reports_them() -> None:
    calls = [use("Agent", "1"), use("Agent", "2", parent="1"), progress("1", 1, "Agent")]
    inner = [progress("2", 1, "Bash"), progress("2", 1, "Bash"), progress("2", 2, "Read")]
    done = progress("2", 2, subtype="task_notification", status="completed")
    seen = evidence(init(), *calls, *inner, done, result())
    assert seen == Evidence(tool_calls=4, tools={"Agent": 2, "Bash": 1, "Read": 1}, read_only=False)


def test_calls_that_nobody_named_may_have_changed_something() -> None:
    calls = [use("Agent", "1"), use("Agent", "2", parent="1")]
    read = [progress("2", 1, "Read"), progress("2", 2, "Grep")]
    assert evidence(init(), *calls, *read, result()).read_only
    unnamed = progress("2", 3, subtype="task_notification", status="completed")
    seen = evidence(init(), *calls, *read, unnamed, result())
    assert (seen.tool_calls, seen.read_only) == (5, False)


def test_each_run_of_a_subagent_has_calls_of_its_own() -> None:
    calls = [use("Agent", "1"), use("Agent", "2", parent="1")]
    runs = [progress("2", 2, "Read"), progress("2", 1, "Read", run="again")]
    assert evidence(init(), *calls, *runs, result()).tool_calls == 5


@pytest.mark.parametrize(
    "denials",
    [
        [denied("Bash", "2")],
        [came_back("2", error=True, decision="reject")],
        [result(permission_denials=[denial("Bash", "2")])],
        [denied("Bash", "2"), result(permission_denials=[denial("Bash", "2")])],
    ],
)
def test_a_denied_call_does_not_count_but_was_attempted(denials: list[dict[str, Any]]) -> None:
    seen = evidence(init(), use("Read", "1"), use("Bash", "2"), *denials, result())
    assert seen == Evidence(tool_calls=1, tools={"Read": 1}, read_only=False)


def test_a_denial_that_is_reported_before_its_call_counts_too() -> None:
    seen = evidence(init(), denied("Bash", "2"), use("Bash", "2"), result())
    assert seen == Evidence(tool_calls=0, read_only=False)


@pytest.mark.parametrize(
    "tool",
    [
        *("Read", "Grep", "Glob", "WebFetch", "WebSearch", "TodoWrite", "ToolSearch"),
        *("StructuredOutput", "Task", "Agent"),
    ],
)
def test_tools_that_change_nothing(tool: str) -> None:
    assert evidence(init(), use(tool, "1"), result()).read_only


@pytest.mark.parametrize(
    "tool",
    [
        *("Bash", "Write", "Edit", "NotebookEdit", "mcp__db__read", "mcp__files__Read"),
        *("SlashCommand", "read", "Reads", "BashOutput", "Skill"),
    ],
)
def test_tools_that_may_change_something(tool: str) -> None:
    failed = [use(tool, "1"), came_back("1", error=True)]
    assert not evidence(init(), *failed, result()).read_only


def test_written_files_are_named_from_the_agents_directory() -> None:
    calls = [
        *(use("Write", "1", file_path="/srv/infra/new.txt"), came_back("1")),
        *(use("Edit", "2", file_path="/srv/infra/src/a.py"), came_back("2", error=None)),
        *(use("Edit", "3", file_path="/srv/db/b.sql"), came_back("3")),
        *(use("Write", "4", file_path="/mnt/infra/c.txt"), came_back("4")),
        *(use("Write", "5", file_path="./d.txt"), came_back("5")),
        *(use("NotebookEdit", "6", notebook_path="/srv/infra/n.ipynb"), came_back("6")),
        *(use("Edit", "7", file_path="/srv/infra/src/a.py"), came_back("7")),
    ]
    seen = evidence(init(cwd="/mnt/infra"), *calls, result())
    assert seen.files_changed == [
        *("../db/b.sql", "c.txt", "d.txt", "n.ipynb", "new.txt", "src/a.py")
    ]


def test_a_file_that_was_not_written_is_not_named() -> None:
    calls = [
        *(use("Write", "1", file_path="/srv/infra/a"), came_back("1", error=True)),
        *(use("Write", "2", file_path="/srv/infra/b"), denied("Write", "2")),
        use("Write", "3", file_path="/srv/infra/never-came-back"),
        *(use("Read", "4", file_path="/srv/infra/read"), came_back("4")),
    ]
    assert evidence(init(), *calls, result()).files_changed is None


def test_at_most_200_files_are_named() -> None:
    calls = []
    for number in range(MAX_FILES + 50):
        calls += [use("Write", f"{number}", file_path=f"/srv/infra/{number:03}")]
        calls += [came_back(f"{number}")]
    seen = evidence(init(), *calls, result())
    assert seen.tool_calls == MAX_FILES + 50
    assert seen.files_changed == [f"{number:03}" for number in range(MAX_FILES)]


def test_long_paths_leave_room_for_the_answer() -> None:
    calls = []
    for number in range(100):
        path = f"/srv/infra/{number:03}{'x' * 2000}"
        calls += [use("Write", f"{number}", file_path=path), came_back(f"{number}")]
    files = evidence(init(), *calls, result()).files_changed or []
    assert 0 < sum(map(len, files)) <= 40_000


def test_odd_events_lose_no_evidence() -> None:
    odd = text("") | {
        "message": {
            "content": [
                {"type": "tool_use", "id": 7, "name": "Read", "input": {"file_path": ["x"]}},
                {"type": "tool_use", "name": "Read", "input": "none"},
                {"type": "tool_use", "name": "Read"},
            ]
        }
    }
    plain = {"type": "user", "message": {"content": "words alone"}, "tool_result_meta": [{}]}
    assert evidence(init(), odd, plain, result()).tools == {"Read": 3}


def test_runs_without_an_answer_have_their_evidence_too() -> None:
    for ending in (Ending.DEADLINE, Ending.CANCELLED, Ending.EXITED):
        seen = evidence(init(), use("Bash", "1"), ending=ending, exit_code=143)
        assert seen.tools == {"Bash": 1}


def test_a_run_that_never_started_has_none() -> None:
    assert classify(report(ending=Ending.START_FAILED, seen=Seen())).evidence is None


def test_many_different_tools_are_counted_in_bounded_space() -> None:
    calls = [use(f"mcp__db__{number}", f"{number}") for number in range(300)]
    seen = evidence(init(), *calls, result(), agent=agent())
    assert seen.tool_calls == 300
    assert len(seen.tools or {}) == 100
