from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_dispatch.core.outcome.report import Ending, RunReport
from agent_dispatch.model.dispatch import DispatchResult, ErrorType, Evidence
from tests.core import builders
from tests.core.builders import RESUME, SESSION, agent, failure, outcome, report, shown

INTERRUPTED = builders.failed("error_during_execution", "aborted_tools", "[ede_diagnostic] ...")
DENIED = builders.result("I may not.", permission_denials=[builders.denial("Bash")])


# An answer


def test_an_answer_is_a_success_with_all_that_is_known_of_it() -> None:
    assert outcome(builders.text("ok"), builders.result("ok", num_turns=2)) == DispatchResult(
        agent="infra",
        success=True,
        result="ok",
        session_id=SESSION,
        cost_usd=0.125,
        duration_ms=5000,
        num_turns=2,
        evidence=Evidence(tool_calls=0, read_only=True),
    )


@pytest.mark.parametrize(
    "facts",
    [
        {"exit_code": 1},
        {"exit_code": -9},
        {"exit_code": 143, "ending": Ending.DEADLINE},
        {"exit_code": None, "ending": Ending.CANCELLED, "cancelled_by": "the client"},
        {"ending": Ending.GUARD_LOST},
        {"stderr_tail": "error: unknown option"},
    ],
)
def test_an_answer_that_arrived_outranks_how_the_run_ended(facts: dict[str, Any]) -> None:
    result = outcome(builders.result("ok"), **facts)
    assert (result.success, result.result, result.error, result.hint) == (True, "ok", None, None)


@pytest.mark.parametrize(
    ("event", "answer"),
    [
        ({"type": "result", "subtype": "success", "is_error": False, "result": "hi"}, "hi"),
        ({"type": "result", "is_error": False, "result": "hi"}, "hi"),
        ({"type": "result", "subtype": "success", "result": "hi"}, "hi"),
        ({"type": "result", "result": "hi"}, "hi"),
        (builders.result() | {"result": 0}, "0"),
        (builders.result() | {"result": {"a": 1}}, '{"a":1}'),
        (builders.result("401 unauthorized: function is not allowed to return null"), None),
    ],
)
def test_fields_decide_and_not_words(event: dict[str, Any], answer: str | None) -> None:
    result = outcome(event)
    assert result.success
    assert result.result == (event["result"] if answer is None else answer)


def test_an_empty_answer_is_a_success_that_says_so() -> None:
    result = outcome(builders.result(""))
    assert result.success
    assert result.result == ""
    assert result.hint is not None
    assert "without an answer in words" in result.hint


def test_the_last_answer_wins_and_none_is_lost() -> None:
    result = outcome(builders.result("one"), builders.result("two"), builders.result("three"))
    assert (result.result, result.earlier_results) == ("three", ["one", "two"])
    assert (result.num_turns, result.cost_usd) == (3, 0.375)


def test_an_empty_last_result_does_not_hide_the_answer() -> None:
    result = outcome(builders.result("one"), builders.result("two"), builders.result(""))
    assert (result.result, result.earlier_results) == ("two", ["one"])
    assert result.hint is None


def test_a_later_turn_that_failed_fails_the_run_and_keeps_the_answer() -> None:
    result = outcome(builders.result("one"), builders.api_error(529, "Overloaded"))
    assert not result.success
    assert result.earlier_results == ["one"]
    assert "earlier_results" in (result.hint or "")


@pytest.mark.parametrize(
    ("later", "facts", "says"),
    [
        ([builders.init()], {"ending": Ending.DEADLINE}, "the time was up (300 s)"),
        ([builders.init(), INTERRUPTED], {"ending": Ending.DEADLINE}, "the time was up (300 s)"),
        (
            [builders.init(), INTERRUPTED],
            {"ending": Ending.CANCELLED, "cancelled_by": "the client"},
            "cancelled by the client",
        ),
        ([builders.text("more")], {"exit_code": 137}, "Claude Code ended (exit code 137)"),
        ([builders.text("more")], {"ending": Ending.GUARD_LOST}, "supervision was lost"),
    ],
)
def test_a_later_turn_that_was_cut_short_leaves_the_answer(
    later: list[dict[str, Any]], facts: dict[str, Any], says: str
) -> None:
    result = outcome(builders.result("one"), *later, **facts)
    assert (result.success, result.result) == (True, "one")
    assert result.hint is not None
    assert "but a later turn after it did not finish" in result.hint
    assert says in result.hint
    assert RESUME in result.hint


def test_background_tasks_that_were_ended_are_reported() -> None:
    result = outcome(
        builders.tasks_now("b1"), builders.result("one"), ending=Ending.DEADLINE, exit_code=143
    )
    assert result.success
    assert "1 background task(s) after it did not finish: the time was up" in (result.hint or "")


def test_processes_left_running_are_reported() -> None:
    result = outcome(builders.result("ok"), left_running=2)
    assert result.left_running == 2
    assert "left 2 process(es) running" in (result.hint or "")
    assert outcome(builders.result("ok")).left_running is None


def test_lines_that_were_cut_are_reported() -> None:
    seen = msgspec.structs.replace(
        builders.transcript(builders.result("ok")).seen(), cut_lines=1, dropped_results=2
    )
    result = shown(msgspec.structs.replace(report(), seen=seen))
    assert "1 line(s) of output were too long" in (result.hint or "")
    assert "2 earlier result(s)" in (result.hint or "")


# JSON


@pytest.mark.parametrize(
    ("answer", "parsed"),
    [('{"a": 1}', {"a": 1}), ("null", None), ("```json\n[1]\n```", [1])],
)
def test_json_is_parsed_if_requested(answer: str, parsed: object) -> None:
    result = outcome(builders.result(answer), response_format="json")
    assert result.parsed_result == parsed
    assert (result.result, result.hint) == (answer, None)
    assert outcome(builders.result(answer)).parsed_result is msgspec.UNSET


@pytest.mark.parametrize("answer", ["no json", "NaN", "[" * 2000 + "]" * 2000, "1" * 5000])
def test_missing_json_leaves_the_text(answer: str) -> None:
    result = outcome(builders.result(answer), response_format="json")
    assert (result.success, result.result) == (True, answer)
    assert result.parsed_result is msgspec.UNSET
    assert "not one JSON value" in (result.hint or "")


def test_structured_output_is_the_parsed_result() -> None:
    event = builders.result("{}", structured_output={"a": 1})
    assert outcome(event, response_format="json").parsed_result == {"a": 1}


SCHEMA = '{"type": "object"}'


def test_requested_structured_output_is_a_success() -> None:
    result = outcome(builders.result('{"a": 1}', structured_output={"a": 1}), json_schema=SCHEMA)
    assert (result.success, result.parsed_result, result.hint) == (True, {"a": 1}, None)
    assert outcome(builders.result("null", structured_output=None), json_schema=SCHEMA).success


def test_missing_structured_output_is_a_failure_that_keeps_the_text() -> None:
    result = outcome(builders.result("I would rather not."), json_schema=SCHEMA)
    assert (result.success, result.error_type) == (False, ErrorType.SCHEMA)
    assert result.result == "I would rather not."
    assert result.cost_usd == 0.125
    assert result.error is not None
    assert "json_schema" in result.error
    assert SESSION in result.error


def test_structured_output_outlasts_the_turns_of_background_tasks() -> None:
    first = builders.result('{"a": 1}', structured_output={"a": 1})
    result = outcome(first, builders.init(), builders.result("task ended"), json_schema=SCHEMA)
    assert (result.success, result.parsed_result) == (True, {"a": 1})


# Cost


@pytest.mark.parametrize(
    ("event", "facts", "cost_usd"),
    [
        (builders.result(), {}, 0.125),
        (builders.result(), {"resumed": SESSION}, 0.125),
        (builders.result(model_usage_since_last_result=None), {}, 0.5),
        (builders.result(model_usage_since_last_result=None), {"resumed": SESSION}, None),
        (builders.result(model_usage_since_last_result={"m": {}}), {}, 0.5),
        ({"type": "result", "subtype": "success", "result": "x"}, {}, None),
    ],
)
def test_the_cost_is_that_of_this_run(
    event: dict[str, Any], facts: dict[str, Any], cost_usd: float | None
) -> None:
    assert outcome(event, **facts).cost_usd == cost_usd


def test_a_run_beyond_its_cap_is_marked() -> None:
    capped = agent(max_budget_usd=0.1)
    assert outcome(builders.result(), agent=capped).budget_exceeded is True
    assert outcome(builders.result(), agent=agent(max_budget_usd=0.125)).budget_exceeded is None
    assert outcome(builders.result(), agent=agent(max_budget_usd=0.0)).budget_exceeded is None


# Permission


def test_a_denied_tool_is_a_soft_sign_on_success() -> None:
    result = outcome(builders.denied("Bash"), DENIED)
    assert result.success
    assert result.denied_tools == ["Bash"]
    assert result.hint == (
        "1 tool call(s) were denied by permissions: Bash. The result may be incomplete."
        '\nAsk your user to run: agent-dispatch update infra --allow "Bash(touch x)"'
    )


@pytest.mark.parametrize(
    ("about", "denied", "says"),
    [
        ({"allowed_tools": ("Read", "Grep")}, ["Write"], '--allow "Write"'),
        ({"allowed_tools": ()}, ["Write", "Edit"], '--allow "Write,Edit"'),
        (
            {"allowed_tools": ("Bash(git log:*,git diff:*)",)},
            ["mcp__pg__query", "mcp__pg__query"],
            '--allow "mcp__pg__query"',
        ),
        ({"allowed_tools": ("Bash(echo $HOME)",)}, ["Write"], '--allow "Write"'),
        (
            {"disallowed_tools": ("Bash(rm:*)", "Write")},
            ["Bash"],
            'agent-dispatch update infra --disallowed-tools "Write"',
        ),
        ({"disallowed_tools": ("Bash(rm:*)",)}, ["Bash"], '--disallowed-tools "none"'),
        (
            {"allowed_tools": ("Bash",), "permission_mode": "plan"},
            ["Bash"],
            "mode, plan (permission_mode of the agent), denies what changes anything",
        ),
        (
            {"allowed_tools": ("Bash",), "permission_mode": "manual"},
            ["Bash"],
            "Bash is granted already, so a wider grant would not help.",
        ),
    ],
)
def test_the_advice_grants_the_least(about: dict[str, Any], denied: list[str], says: str) -> None:
    denials = [builders.denial(tool, str(number)) for number, tool in enumerate(denied)]
    event = builders.result("hm", permission_denials=denials)
    assert says in (outcome(event, agent=agent(**about)).hint or "")


@pytest.mark.parametrize(
    ("allowed", "commands", "rules"),
    [
        (None, ["touch made"], "Bash(touch made)"),
        (None, ["touch made", "touch made", "git log"], "Bash(touch made),Bash(git log)"),
        (("Read",), ["ls ."], "Bash(ls .)"),
        (None, ["touch a && touch b"], "Bash(touch a && touch b)"),
        (None, ["touch 'a(b)c'"], "Bash(touch 'a(b)c')"),
        (None, ["touch made", "", "ls *"], "Bash(touch made)"),
        (None, [f"touch {n}" for n in range(6)], ",".join(f"Bash(touch {n})" for n in range(5))),
    ],
)
def test_a_denied_command_is_granted_by_itself(
    allowed: tuple[str, ...] | None, commands: list[str], rules: str
) -> None:
    denials = [
        builders.denial("Bash", str(number)) | {"tool_input": {"command": command}}
        for number, command in enumerate(commands)
    ]
    event = builders.result("hm", permission_denials=denials)
    hint = outcome(event, agent=agent(allowed_tools=allowed)).hint or ""
    assert f'agent-dispatch update infra --allow "{rules}"' in hint


@pytest.mark.parametrize(
    ("allowed", "command"),
    [
        ((), "echo 'a)b'"),
        ((), "ls *"),
        ((), "echo a > b"),
        ((), "echo a\nrm b"),
        ((), "touch " + "x" * 200),
        ((), ""),
        (("Bash(touch made)",), "touch made"),
        (("Bash",), "touch made"),
    ],
)
def test_no_grant_is_named_if_no_narrow_one_helps(allowed: tuple[str, ...], command: str) -> None:
    call = builders.denial("Bash") | {"tool_input": {"command": command}}
    event = builders.result("hm", permission_denials=[call])
    assert "--allow" not in (outcome(event, agent=agent(allowed_tools=allowed)).hint or "")


@pytest.mark.parametrize("odd", [None, 5, "text", [], {"command": 5}, {"command": None}])
def test_odd_input_of_a_denied_call_does_no_harm(odd: object) -> None:
    event = builders.result(
        "hm", permission_denials=[builders.denial("Bash") | {"tool_input": odd}]
    )
    result = outcome(event)
    assert (result.result, result.denied_tools) == ("hm", ["Bash"])


def test_a_run_that_failed_after_a_denial_names_the_update() -> None:
    event = builders.failed(
        "error_max_turns", "max_turns", "Reached", permission_denials=[builders.denial("Bash")]
    )
    kind, error = failure(event, exit_code=1)
    assert kind is ErrorType.PERMISSION
    assert 'agent-dispatch update infra --allow "Bash(touch x)"' in error
    assert outcome(event, exit_code=1).denied_tools == ["Bash"]


@pytest.mark.parametrize("words", ["Tool_use is not allowed in this permission mode", "denied"])
def test_words_about_permission_are_not_a_denial(words: str) -> None:
    event = builders.result(words, is_error=True, terminal_reason="completed")
    assert failure(event)[0] is ErrorType.CLI_ERROR


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (builders.api_error(529, "Overloaded"), ErrorType.CLI_ERROR),
        (builders.api_error(401, "No"), ErrorType.AUTH),
        (builders.api_error(429, "Limit"), ErrorType.USAGE_LIMIT),
        (builders.failed("error_max_budget_usd", "budget_exhausted"), ErrorType.BUDGET),
    ],
)
def test_a_better_reason_outranks_a_denial(event: dict[str, Any], kind: ErrorType) -> None:
    result = outcome(event | {"permission_denials": [builders.denial("Bash")]})
    assert result.error_type is kind
    assert result.denied_tools == ["Bash"]
    assert "1 tool call(s) were denied" in (result.hint or "")


# Whatever happens


EVENTS = st.lists(
    st.sampled_from(
        [
            builders.init(),
            builders.text("hm"),
            builders.tool_use("Bash"),
            builders.denied("Bash"),
            builders.retry(401),
            builders.retry(None),
            builders.tasks_now("b1"),
            builders.result("ok"),
            builders.result(""),
            DENIED,
            INTERRUPTED,
            builders.api_error(429, "limit"),
            builders.failed("error_max_budget_usd", "budget_exhausted"),
            {"type": "result"},
        ]
    ),
    max_size=6,
)
REPORTS = st.builds(
    lambda events, **facts: report(*events, **facts),
    EVENTS,
    ending=st.sampled_from([ending for ending in Ending if ending is not Ending.START_FAILED]),
    exit_code=st.sampled_from([None, 0, 1, 143, -9, 255, -64]),
    response_format=st.sampled_from(["", "json"]),
    resumed=st.sampled_from([None, SESSION]),
    stderr_tail=st.sampled_from(["", "oops"]),
    left_running=st.integers(0, 2),
)


@given(REPORTS)
def test_every_run_has_a_result_that_is_either_answer_or_error(run: RunReport) -> None:
    result = shown(run)
    assert result.success == (result.error is None) == (result.error_type is None)
    assert result.error is None or result.error.strip()
    assert msgspec.json.decode(msgspec.json.encode(result))["agent"] == "infra"


@given(REPORTS)
def test_no_answer_is_ever_lost(run: RunReport) -> None:
    result = shown(run)
    # Of a run that failed, `result` holds unfinished words, which may repeat an answer.
    kept = [*(result.earlier_results or []), *([result.result] if result.success else [])]
    answers = [event.result for event in run.seen.results if event.is_error is False]
    assert [text for text in kept if text in answers and text] == [a for a in answers if a]


def test_a_later_turn_without_usage_costs_what_it_adds_to_the_total() -> None:
    seen = builders.transcript(builders.result(total_cost_usd=0.5)).seen()
    later = msgspec.structs.replace(
        seen, usage_cost_usd=None, session_cost_usd=0.75, cost_before_usd=0.5
    )
    assert shown(builders.report(seen=later)).cost_usd == 0.25
    untold = msgspec.structs.replace(later, session_cost_usd=None)
    assert shown(builders.report(seen=untold)).cost_usd is None


# What hooks do to a run


def test_a_result_that_a_stop_hook_emptied_has_the_words_and_the_reason() -> None:
    cap = {"type": "system", "subtype": "notification", "key": "stop-hook-block-cap", "text": "9"}
    result = outcome(builders.init(), builders.text("hi"), cap, builders.result(""))
    assert (result.success, result.result) == (True, "hi")
    assert "Stop hook kept the agent from finishing" in (result.hint or "")
    assert "/srv/infra/.claude/settings.json" in (result.hint or "")


@pytest.mark.parametrize("reason", ["hook_stopped", "stop_hook_prevented"])
def test_a_run_that_a_hook_stopped_says_so(reason: str) -> None:
    events = [builders.text("let me see"), builders.tool_use("Bash"), builders.tool_result()]
    end = builders.result("", terminal_reason=reason)
    result = outcome(builders.init(), *events, end)
    assert (result.success, result.result) == (True, "let me see")
    assert "hook stopped the run" in (result.hint or "")


def test_words_in_place_of_an_empty_result_are_reported() -> None:
    result = outcome(builders.init(), builders.text("hi"), builders.result(""))
    assert result.result == "hi"
    assert "no final answer" in (result.hint or "")


def test_a_hook_that_refuses_the_prompt_is_named_with_its_reason() -> None:
    refused = {
        "type": "system",
        "subtype": "informational",
        "prompt_submit_outcome": {"kind": "blocked_by_hook", "reason": "not today"},
    }
    kind, error = failure(builders.init(), refused, builders.result("blocked", num_turns=0))
    assert kind is ErrorType.CLI_ERROR
    assert "UserPromptSubmit hook" in error
    assert "not today" in error
    assert "doctor" not in error
