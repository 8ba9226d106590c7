from typing import Any

import pytest

from agent_dispatch.core.stream.events import CutLine, NoiseLine, ResultEvent
from agent_dispatch.core.stream.reader import EventDecoder
from agent_dispatch.core.stream.transcript import Transcript
from tests.core import builders
from tests.core.builders import transcript


def progress(*events: dict[str, Any]) -> list[str]:
    """The lines shown for the last of `events`."""
    seen = Transcript()
    shown = [seen.add(event) for event in EventDecoder().feed(builders.lines(*events))]
    return [line.message for line in shown[-1]]


def test_a_session_is_known_from_its_init() -> None:
    before = transcript()
    assert (before.seen().init_seen, before.session_id) == (False, None)
    after = transcript(builders.init())
    assert (after.seen().init_seen, after.session_id) == (True, builders.SESSION)


def test_a_result_without_init_names_a_session_only_if_a_model_was_asked() -> None:
    unknown = builders.failed("error_during_execution", None, "No conversation found", num_turns=0)
    assert transcript(unknown).session_id is None
    assert transcript(builders.result()).session_id == builders.SESSION


def test_a_run_is_idle_after_its_result() -> None:
    assert not transcript(builders.init(), builders.text("hm")).idle
    done = transcript(builders.init(), builders.text("ok"), builders.result())
    assert done.answered
    assert done.idle


def test_a_background_task_keeps_a_run_from_being_idle() -> None:
    start = [builders.init(), builders.tasks_now("b1"), builders.task("task_started")]
    waiting = transcript(*start, builders.result())
    assert waiting.answered
    assert not waiting.idle
    assert waiting.seen().unfinished_tasks == 1
    over = builders.task("task_notification", status="completed", summary="done")
    assert transcript(*start, builders.result(), over, builders.tasks_now()).idle


def test_the_list_of_tasks_outranks_events_of_single_tasks() -> None:
    start = [builders.task("task_started", is_backgrounded=True), builders.tasks_now()]
    assert transcript(*start, builders.result()).idle


@pytest.mark.parametrize("flag", ["ambient", "off_host"])
def test_a_task_that_needs_no_host_is_not_waited_for(flag: str) -> None:
    assert transcript(builders.tasks_now("b1", **{flag: True}), builders.result()).idle


@pytest.mark.parametrize(
    ("changes", "is_idle"),
    [
        ([{}], False),
        ([{"is_backgrounded": True}], False),
        ([{"is_backgrounded": False}], True),
        ([{"ambient": True}], True),
        ([{}, {"subtype": "task_notification", "status": "completed"}], True),
        ([{}, {"subtype": "task_updated", "patch": {"status": "killed"}}], True),
        ([{}, {"subtype": "task_updated", "patch": {"status": "running"}}], False),
        (
            [
                {"is_backgrounded": False},
                {"subtype": "task_updated", "patch": {"is_backgrounded": True}},
            ],
            False,
        ),
    ],
)
def test_without_the_list_each_task_counts_from_its_start_to_its_end(
    changes: list[dict[str, Any]], is_idle: bool
) -> None:
    events = [builders.task("task_started") | each for each in changes]
    assert transcript(*events, builders.result()).idle is is_idle


@pytest.mark.parametrize(
    "begins",
    [builders.init(), builders.text("more"), builders.tool_result(), builders.retry(529)],
)
def test_a_turn_that_begins_after_a_result_is_waited_for(begins: dict[str, Any]) -> None:
    first = [builders.init(), builders.result("one")]
    assert not transcript(*first, begins).idle
    assert transcript(*first, begins).turn_open
    assert transcript(*first, begins, builders.result("two")).idle


def test_a_subagents_message_after_the_result_opens_no_turn() -> None:
    talk = builders.text("still at it", parent_tool_use_id="toolu_1")
    heard = builders.tool_result(parent_tool_use_id="toolu_1")
    assert transcript(builders.init(), builders.result(), talk, heard).idle


def test_credentials_refused_twice_in_a_row_are_enough() -> None:
    refused = builders.retry(401, error="authentication_failed")
    assert not transcript(builders.init(), refused).credentials_refused
    assert transcript(builders.init(), refused, refused).credentials_refused
    assert transcript(refused, builders.retry(403)).credentials_refused


@pytest.mark.parametrize("between", [builders.text("hi"), builders.retry(529), builders.result()])
def test_credentials_that_worked_in_between_are_not_refused(between: dict[str, Any]) -> None:
    refused = builders.retry(401)
    assert not transcript(refused, between, refused).credentials_refused


def test_the_report_of_an_api_error_does_not_reset_the_count() -> None:
    failing = builders.text("Failed to authenticate", error="authentication_failed")
    assert transcript(builders.retry(401), failing, builders.retry(401)).credentials_refused


def test_each_denied_call_counts_once() -> None:
    told_twice = builders.result(
        permission_denials=[builders.denial("Bash"), builders.denial("Write", "toolu_3")]
    )
    seen = transcript(builders.denied("Bash"), told_twice, told_twice).seen()
    assert seen.denied_tools == ("Bash", "Write")


def test_denied_calls_of_one_tool_are_counted() -> None:
    twice = [builders.denial("Bash", "a"), builders.denial("Bash", "b")]
    assert transcript(builders.result(permission_denials=twice)).seen().denied_tools == (
        "Bash",
        "Bash",
    )


def test_costs_and_turns_add_up_over_results() -> None:
    seen = transcript(
        builders.result("one", num_turns=2, total_cost_usd=0.5),
        builders.result("two", num_turns=1, total_cost_usd=0.75),
    ).seen()
    assert (seen.num_turns, seen.usage_cost_usd, seen.session_cost_usd) == (3, 0.25, 0.75)


def test_usage_without_a_price_gives_no_cost() -> None:
    unpriced = builders.result(model_usage_since_last_result={"m": {"inputTokens": 5}})
    assert transcript(builders.result(), unpriced).seen().usage_cost_usd is None


def test_a_result_that_counts_nothing_costs_nothing() -> None:
    assert transcript(builders.result(model_usage_since_last_result={})).seen().usage_cost_usd == 0


def test_the_last_words_are_kept_until_a_result_confirms_them() -> None:
    said = [builders.text("one"), builders.tool_use("Bash"), builders.text("two")]
    assert transcript(*said).seen().unanswered_text == "two"
    stopped = builders.failed("error_max_budget_usd", "budget_exhausted")
    assert transcript(*said, stopped).seen().unanswered_text == "two"
    assert transcript(*said, builders.tool_use("Bash")).seen().unanswered_text == ""
    assert transcript(*said, builders.result("two")).seen().unanswered_text == ""


def test_memory_is_bounded() -> None:
    seen = Transcript()
    for number in range(5000):
        seen.add(ResultEvent(result=f"{number} " + "x" * 100_000, is_error=False))
        seen.add(NoiseLine("n" * 2000))
        seen.add(CutLine(b""))
    facts = seen.seen()
    assert sum(len(result.result) for result in facts.results) < 17 * 1024 * 1024
    assert facts.results[-1].result.startswith("4999 ")
    assert facts.dropped_results + len(facts.results) == 5000
    assert len(facts.noise_tail) < 5000
    assert facts.cut_lines == 5000


def test_an_answer_outlives_any_number_of_empty_results() -> None:
    seen = Transcript()
    seen.add(ResultEvent(result="the answer"))
    for _ in range(1000):
        seen.add(ResultEvent())
    results = seen.seen().results
    assert len(results) == 200
    assert results[0].result == "the answer"


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (builders.init(), "Started Claude Code 2.1.330, model claude-opus-5-5"),
        (
            builders.init(
                model=None,
                claude_code_version=None,
                mcp_servers=[
                    {"name": "pg", "status": "failed"},
                    {"name": "a", "status": "connected"},
                ],
            ),
            "Started Claude Code; MCP servers that failed: pg",
        ),
        (builders.tool_use("Bash"), "Bash: touch x"),
        (builders.text("\n  First line.\nSecond."), "First line."),
        (builders.text("x" * 500), "x" * 199 + "…"),
        (builders.text("I use password=hunter2 for it."), "I use password=h… for it."),
        (builders.text("x" * 190 + " ghp_abcdefghij"), "x" * 190 + " ghp…"),
        (builders.text("\x1b[31mred\x07\u2028"), "[31mred"),
        (
            builders.retry(529, attempt=2, retry_delay_ms=4000),
            "API error 529 (overloaded), retry 2 of 10 in 4 s",
        ),
        (
            builders.retry(None, error=None, retry_delay_ms=None),
            "The API did not answer, retry 1 of 10",
        ),
        (builders.denied("Bash"), "Denied tool: Bash"),
        (builders.task("task_started"), "Background task started: build"),
        (
            builders.task("task_notification", status="completed", summary="build ended"),
            "Background task completed: build ended",
        ),
    ],
)
def test_progress_is_one_line(event: dict[str, Any], line: str) -> None:
    assert progress(event) == [line]


def test_waiting_for_a_background_task_is_reported() -> None:
    events = [builders.tasks_now("b1", "b2"), builders.result()]
    assert progress(*events) == ["Answered; waiting for 2 background task(s)"]


def test_a_second_turn_is_reported() -> None:
    assert progress(builders.init(), builders.result(), builders.init()) == ["Next turn"]


@pytest.mark.parametrize(
    "event",
    [
        builders.tool_result(),
        builders.result(),
        builders.tasks_now(),
        builders.task("task_started", is_backgrounded=False),
        builders.text("an API error", error="rate_limit"),
        {"type": "stream_event"},
        {"type": "rate_limit_event", "rate_limit_info": {"status": "allowed"}},
        {"type": "system", "subtype": "status", "status": None},
    ],
)
def test_an_event_without_news_gives_no_line(event: dict[str, Any]) -> None:
    assert progress(event) == []


def test_each_turn_of_a_process_has_its_own_facts_in_one_session() -> None:
    seen = Transcript()
    builders.read(seen, builders.init(), builders.denied("Bash"), builders.result("one"))
    assert seen.seen().usage_cost_usd == 0.125
    seen.next_turn()
    assert (seen.answered, seen.turn_open, seen.session_id) == (False, False, builders.SESSION)
    seen.expect_answer()
    assert seen.turn_open
    builders.read(seen, builders.init(), builders.result("two"))
    facts = seen.seen()
    assert seen.idle
    assert [result.result for result in facts.results] == ["two"]
    assert (facts.denied_tools, facts.num_turns, facts.usage_cost_usd) == ((), 1, 0.125)


def test_a_result_before_the_next_prompt_counts_to_its_turn_but_does_not_answer_it() -> None:
    seen = Transcript()
    builders.read(seen, builders.init(), builders.result("one"))
    seen.next_turn()
    builders.read(seen, builders.init(), builders.text("the tests pass"))
    assert seen.turn_open
    builders.read(seen, builders.result("late"))
    assert not seen.turn_open
    seen.expect_answer()
    assert not seen.answered
    builders.read(seen, builders.result("two"))
    assert seen.answered
    facts = seen.seen()
    assert [result.result for result in facts.results] == ["late", "two"]
    assert facts.usage_cost_usd == 0.25


def test_a_turn_remembers_that_a_background_task_was_at_work() -> None:
    assert not transcript(builders.init(), builders.result()).had_tasks
    done = transcript(builders.tasks_now("b1"), builders.tasks_now(), builders.result())
    assert done.idle
    assert done.had_tasks
    done.next_turn()
    assert not done.had_tasks
    alive = transcript(builders.tasks_now("b1"), builders.result())
    alive.next_turn()
    assert alive.had_tasks


BUILD = [builders.init(), builders.tasks_now("b5fpscfwm"), builders.task("task_started")]
STOPPED = builders.task("task_notification", status="stopped")
KILLED = builders.task("task_updated", patch={"status": "killed"})


@pytest.mark.parametrize("ends", [[STOPPED, KILLED], [KILLED, STOPPED], [STOPPED], [KILLED]])
@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("answered_before", [True, False])
def test_a_background_task_that_the_cli_stopped_is_unfinished_once(
    ends: list[dict[str, Any]], listed: bool, answered_before: bool
) -> None:
    begin = BUILD if listed else [builders.init(), builders.task("task_started")]
    gone = [builders.tasks_now()] if listed else []
    answer = [builders.text("later"), builders.result("later")]
    events = [*answer, *ends, *gone] if answered_before else [*ends, *gone, *answer]
    after = transcript(*begin, *events)
    assert after.seen().unfinished_tasks == 1
    # It is not waited for: there is nothing left to wait for.
    assert after.idle
    # Cut off between the news of its end and the list without it, it counts once all the same.
    assert transcript(*begin, *answer, *ends).seen().unfinished_tasks == 1


@pytest.mark.parametrize(
    ("tool", "given"),
    [("TaskStop", "task_id"), ("TaskStop", "shell_id"), ("KillShell", "shell_id")],
)
@pytest.mark.parametrize("parent", [None, "toolu_1"])
def test_a_background_task_that_the_agent_stopped_is_finished(
    tool: str, given: str, parent: str | None
) -> None:
    block = {"type": "tool_use", "id": "t", "name": tool, "input": {given: "b5fpscfwm"}}
    stop = builders.text("", message={"content": [block]}, parent_tool_use_id=parent)
    events = [*BUILD, stop, KILLED, STOPPED, builders.tasks_now(), builders.result("stopped it")]
    assert transcript(*events).seen().unfinished_tasks == 0


@pytest.mark.parametrize("status", ["completed", "failed"])
def test_a_background_task_that_ended_by_itself_is_finished(status: str) -> None:
    end = builders.task("task_notification", status=status)
    after = transcript(*BUILD, builders.result("later"), end, builders.tasks_now())
    assert after.seen().unfinished_tasks == 0


def test_a_task_cut_off_in_one_turn_does_not_count_to_the_next() -> None:
    seen = transcript(*BUILD, builders.result("later"), STOPPED, builders.tasks_now())
    seen.next_turn()
    assert seen.seen().unfinished_tasks == 0


def test_an_empty_result_gets_the_last_words_of_its_turn() -> None:
    first = [builders.text("one"), builders.tool_use("Bash"), builders.result("")]
    second = [builders.text("two"), builders.text("three"), builders.result("")]
    seen = transcript(builders.init(), *first, *second, builders.result("")).seen()
    assert [result.result for result in seen.results] == ["one", "three", ""]
    assert not seen.words_recovered
    assert transcript(builders.init(), *first).seen().words_recovered


def test_a_subagents_words_are_not_the_agents_answer() -> None:
    talk = builders.text("deep down", parent_tool_use_id="toolu_1")
    assert transcript(builders.init(), talk, builders.result("")).seen().results[0].result == ""


def test_a_failure_without_words_gets_none() -> None:
    events = [builders.text("one"), builders.failed("error_max_turns", "max_turns")]
    assert transcript(builders.init(), *events).seen().results[0].result == ""


def test_a_hook_runs_from_its_start_to_its_response() -> None:
    begun = {"type": "system", "subtype": "hook_started", "hook_id": "h", "hook_name": "Stop"}
    assert transcript(begun).seen().running_hooks == ("Stop",)
    assert transcript(begun, begun | {"subtype": "hook_response"}).seen().running_hooks == ()


def test_a_hook_that_is_ended_with_its_process_had_not_ended() -> None:
    begun = {"type": "system", "subtype": "hook_started", "hook_id": "h", "hook_name": "Stop"}
    seen = transcript(begun)
    seen.time_is_up()
    builders.read(seen, begun | {"subtype": "hook_response"})
    assert seen.seen().running_hooks == ("Stop",)
