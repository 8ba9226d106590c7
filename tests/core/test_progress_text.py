from typing import Any

import pytest

from agent_dispatch.core.stream.progress_text import started_line, with_agent
from agent_dispatch.core.stream.reader import EventDecoder
from agent_dispatch.core.stream.transcript import Transcript
from agent_dispatch.model.dispatch import Progress
from tests.core import builders


def lines(*blocks: dict[str, Any]) -> list[str]:
    event = builders.text("") | {"message": {"role": "assistant", "content": list(blocks)}}
    (decoded,) = EventDecoder().feed(builders.lines(event))
    return [with_agent("infra", progress, 12.4).message for progress in Transcript().add(decoded)]


def call(name: str, **given: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": f"toolu_{name}", "name": name, "input": given}


@pytest.mark.parametrize(
    ("block", "line"),
    [
        (call("Bash", command="kubectl logs web-1"), "infra · Bash: kubectl logs web-1 · 12 s"),
        (call("Bash", command="cd /x\n  make"), "infra · Bash: cd /x make · 12 s"),
        (call("Bash", command="x" * 200), f"infra · Bash: {'x' * 79}… · 12 s"),
        (call("Read", file_path="/srv/a.py"), "infra · Read: /srv/a.py · 12 s"),
        (call("Grep", pattern="TODO", path="src"), "infra · Grep: TODO · 12 s"),
        (call("WebFetch", url="https://a.example"), "infra · WebFetch: https://a.example · 12 s"),
        (call("mcp__shop__orders", since=3), "infra · mcp__shop__orders · 12 s"),
        (
            call("Bash", command="x" * 70 + " API_KEY=ghp_" + "0" * 36),
            f"infra · Bash: {'x' * 70} API_KEY=… · 12 s",
        ),
    ],
)
def test_a_call_is_shown_with_its_target(block: dict[str, Any], line: str) -> None:
    assert lines(block) == [line]


def test_a_sentence_comes_before_the_calls_of_its_message() -> None:
    said = {"type": "text", "text": "I look at both.\nThen more."}
    assert lines(said, call("Read", file_path="a"), call("Read", file_path="b")) == [
        "infra · I look at both.",
        "infra · Read: a · 12 s",
        "infra · Read: b · 12 s",
    ]


def test_below_a_second_no_time_is_shown() -> None:
    assert with_agent("infra", Progress("Bash: x", is_tool=True), 0.9).message == "infra · Bash: x"


def test_the_first_line_names_the_job() -> None:
    first = with_agent("infra", started_line("0190a7b0c1d27abc8def0123456789ab"), 0)
    assert first.message == "infra · started · job 456789ab"
    assert first.job_id == "0190a7b0c1d27abc8def0123456789ab"


def test_a_foreground_task_is_not_a_background_task() -> None:
    seen = Transcript()
    started_, ended = (
        builders.task("task_started", is_backgrounded=False),
        builders.task("task_notification", status="completed", summary="sleep 20"),
    )
    events = EventDecoder().feed(builders.lines(started_, ended))
    assert [list(seen.add(event)) for event in events] == [[], []]
    moved = builders.task("task_updated", patch={"is_backgrounded": True})
    events = EventDecoder().feed(builders.lines(started_, moved, ended))
    assert [[line.message for line in seen.add(event)] for event in events][-1] == [
        "Background task completed: sleep 20"
    ]
