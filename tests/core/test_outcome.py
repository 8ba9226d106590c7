import errno
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_dispatch.cli.next_steps import in_shell
from agent_dispatch.core.command import UNREADABLE_DEPTH
from agent_dispatch.core.next_step import worded
from agent_dispatch.core.outcome.classify import classify
from agent_dispatch.core.outcome.refusal import recursion_refused, refused
from agent_dispatch.core.outcome.report import Ending, RunReport, StartFailure, StartStage
from agent_dispatch.model.dispatch import DispatchResult, ErrorType, Evidence
from tests.core import builders
from tests.core.builders import SESSION, agent, report, shown

RESUME = (
    f'dispatch_session(agent="infra", task="Continue where you left off", session_id="{SESSION}")'
)
INTERRUPTED = builders.failed("error_during_execution", "aborted_tools", "[ede_diagnostic] ...")
DENIED = builders.result("I may not.", permission_denials=[builders.denial("Bash")])


def outcome(*events: dict[str, Any], **facts: Any) -> DispatchResult:
    return shown(report(builders.init(), *events, **facts))


def failure(*events: dict[str, Any], **facts: Any) -> tuple[ErrorType | None, str]:
    result = outcome(*events, **facts)
    assert not result.success
    assert result.error is not None
    return result.error_type, result.error


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


def test_background_tasks_that_were_ended_are_told() -> None:
    result = outcome(
        builders.tasks_now("b1"), builders.result("one"), ending=Ending.DEADLINE, exit_code=143
    )
    assert result.success
    assert "1 background task(s) after it did not finish: the time was up" in (result.hint or "")


def test_what_was_left_running_is_told() -> None:
    result = outcome(builders.result("ok"), left_running=2)
    assert result.left_running == 2
    assert "left 2 process(es) running" in (result.hint or "")
    assert outcome(builders.result("ok")).left_running is None


def test_lines_that_were_cut_are_told() -> None:
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
def test_json_is_parsed_when_it_was_asked_for(answer: str, parsed: object) -> None:
    result = outcome(builders.result(answer), response_format="json")
    assert result.parsed_result == parsed
    assert (result.result, result.hint) == (answer, None)
    assert outcome(builders.result(answer)).parsed_result is msgspec.UNSET


@pytest.mark.parametrize("answer", ["no json", "NaN", "[" * 2000 + "]" * 2000, "1" * 5000])
def test_json_that_was_not_delivered_costs_no_text(answer: str) -> None:
    result = outcome(builders.result(answer), response_format="json")
    assert (result.success, result.result) == (True, answer)
    assert result.parsed_result is msgspec.UNSET
    assert "not one JSON value" in (result.hint or "")


def test_structured_output_is_the_parsed_result() -> None:
    event = builders.result("{}", structured_output={"a": 1})
    assert outcome(event, response_format="json").parsed_result == {"a": 1}


SCHEMA = '{"type": "object"}'


def test_structured_output_that_was_asked_for_is_a_success() -> None:
    result = outcome(builders.result('{"a": 1}', structured_output={"a": 1}), json_schema=SCHEMA)
    assert (result.success, result.parsed_result, result.hint) == (True, {"a": 1}, None)
    assert outcome(builders.result("null", structured_output=None), json_schema=SCHEMA).success


def test_structured_output_that_was_not_delivered_is_a_failure_that_keeps_the_text() -> None:
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
            "Bash is granted already, and a wider grant is not what it lacks.",
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
def test_no_grant_is_named_where_no_narrow_one_helps(
    allowed: tuple[str, ...], command: str
) -> None:
    call = builders.denial("Bash") | {"tool_input": {"command": command}}
    event = builders.result("hm", permission_denials=[call])
    assert "--allow" not in (outcome(event, agent=agent(allowed_tools=allowed)).hint or "")


@pytest.mark.parametrize("odd", [None, 5, "text", [], {"command": 5}, {"command": None}])
def test_odd_input_of_a_denied_call_costs_nothing(odd: object) -> None:
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
def test_words_about_permission_are_no_denial(words: str) -> None:
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


# Login and limits


def credentials_refused(words: str, **changes: Any) -> list[dict[str, Any]]:
    told = builders.text(words, error="authentication_failed", is_api_error_message=True)
    return [told, builders.api_error(None, words, **changes)]


@pytest.mark.parametrize(
    "events",
    [
        [builders.api_error(401, "Failed to authenticate. API Error: 401")],
        [builders.api_error(403, "Failed to authenticate. API Error: 403")],
        [builders.api_error(None, "x", api_error="org_disabled_credential")],
        credentials_refused("Anything"),
        [builders.api_error(None, "Not logged in \u00b7 Please run /login")],
        [builders.result("Invalid API key \u00b7 Please run /login", is_error=True)],
    ],
)
def test_missing_credentials_say_how_to_log_in(events: list[dict[str, Any]]) -> None:
    kind, error = failure(*events, exit_code=1)
    assert kind is ErrorType.AUTH
    assert "claude auth login" in error
    assert "bypass" not in error.lower()


def test_a_run_ended_at_the_second_refusal_is_a_matter_of_login() -> None:
    refusal = builders.retry(401, error="authentication_failed", attempt=2)
    kind, error = failure(refusal, ending=Ending.AUTH, exit_code=143)
    assert kind is ErrorType.AUTH
    assert "API error 401 (authentication_failed), retry 2 of 10" in error


@pytest.mark.parametrize(
    "event",
    [
        builders.api_error(403, "Blocked", api_error="network_edge_blocked"),
        builders.api_error(400, "Please run /login"),
        builders.result("To log in: Please run /login", is_error=True, api_error_status=500),
    ],
)
def test_not_every_refusal_is_a_matter_of_login(event: dict[str, Any]) -> None:
    assert failure(event)[0] is ErrorType.CLI_ERROR


@pytest.mark.parametrize(
    "event",
    [
        builders.api_error(429, "You've hit your limit", api_error="usage_limit_reached"),
        builders.api_error(402, "Credit balance is too low", api_error_type="billing_error"),
        builders.api_error(None, "x", api_error="model_requires_usage_credits"),
    ],
)
def test_a_limit_says_so_and_when_it_ends(event: dict[str, Any]) -> None:
    kind, error = failure(event)
    assert kind is ErrorType.USAGE_LIMIT
    assert "It is not known when that ends" in error
    info = {"status": "rejected", "resetsAt": 1795351976, "rateLimitType": "five_hour"}
    limit = {"type": "rate_limit_event", "rate_limit_info": info}
    assert "It resets at 2026-11-22 12:52 UTC." in failure(limit, event)[1]
    for nonsense in (1e300, -1e300):
        limit["rate_limit_info"] = info | {"resetsAt": nonsense}
        assert "It is not known when" in failure(limit, event)[1]


def test_a_usage_limit_carries_its_reset_as_a_value_from_the_event() -> None:
    error = builders.api_error(429, "resets at noon", api_error="usage_limit_reached")
    info = {"status": "rejected", "resetsAt": 1795351976, "rateLimitType": "five_hour"}
    event = {"type": "rate_limit_event", "rate_limit_info": info}
    said = builders.text("limit", error="rate_limit", api_error="usage_limit_reached")
    beside = said | {"api_error_params": {"rate_limit_info": info}}
    for events in ([event], [beside], [event, beside]):
        result = classify(builders.report(builders.init(), *events, error))
        assert (result.error_type, result.resets_at) == (
            ErrorType.USAGE_LIMIT,
            "2026-11-22T12:52:56Z",
        )
    assert classify(builders.report(builders.init(), error)).resets_at is None
    without = event | {"rate_limit_info": {"status": "rejected"}}
    assert classify(builders.report(builders.init(), without, error)).resets_at is None
    assert classify(builders.report(builders.init(), event, builders.result())).resets_at is None


def test_a_cost_has_six_decimals_at_most() -> None:
    usage = {"a": {"costUSD": 0.1}, "b": {"costUSD": 0.2}}
    event = builders.result(model_usage_since_last_result=usage)
    assert classify(builders.report(builders.init(), event)).cost_usd == 0.3


# Other failing results


def test_a_budget_that_ran_out_says_what_to_do_and_keeps_the_last_words() -> None:
    event = builders.failed("error_max_budget_usd", "budget_exhausted", "Reached maximum budget")
    result = outcome(
        builders.text("The answer."), event, agent=agent(max_budget_usd=0.1), exit_code=1
    )
    assert (result.success, result.error_type) == (False, ErrorType.BUDGET)
    assert result.result == "The answer."
    assert result.budget_exceeded is True
    assert result.error is not None
    assert "its cap of $0.1" in result.error
    assert RESUME in result.error
    assert "Ask your user to run: agent-dispatch update infra --max-budget-usd 0.2" in result.error


@pytest.mark.parametrize(("cap", "shown"), [(0.00001, "$0.00001 "), (1e6, "$1000000 "), (2, "$2 ")])
def test_a_cap_is_shown_in_digits(cap: float, shown: str) -> None:
    event = builders.failed("error_max_budget_usd", "budget_exhausted")
    assert shown in failure(event, agent=agent(max_budget_usd=cap))[1]


@pytest.mark.parametrize(
    ("event", "kind", "says"),
    [
        (
            builders.failed("error_max_structured_output_retries", None),
            ErrorType.SCHEMA,
            "structured output",
        ),
        (
            builders.failed("error_during_execution", "structured_output_retry_exhausted"),
            ErrorType.SCHEMA,
            "structured output",
        ),
        (
            builders.api_error(529, "Overloaded", api_error_type="overloaded_error"),
            ErrorType.CLI_ERROR,
            "(API status 529, overloaded_error, api_error). It said: Overloaded. Such an error is",
        ),
        (builders.api_error(400, "Bad"), ErrorType.CLI_ERROR, "(API status 400, api_error)"),
        (
            builders.result("Prompt is too long", is_error=True, terminal_reason="blocking_limit"),
            ErrorType.CLI_ERROR,
            "do not fit the model's context",
        ),
        (
            builders.failed("error_max_turns", "max_turns", "Reached maximum number of turns (1)"),
            ErrorType.CLI_ERROR,
            "its limit on turns",
        ),
        (
            builders.result("", subtype="error_max_turns", terminal_reason=None),
            ErrorType.CLI_ERROR,
            "its limit on turns",
        ),
        (
            builders.result("/help isn't available.", num_turns=0, terminal_reason=None),
            ErrorType.CLI_ERROR,
            "without asking a model. It said: /help isn't available.",
        ),
        (
            builders.failed("error_during_execution", None, startup_failure_reason="bypass_root"),
            ErrorType.CLI_ERROR,
            "bypass_root",
        ),
        (INTERRUPTED, ErrorType.CLI_ERROR, "(aborted_tools). Something outside interrupted it."),
        ({"type": "result"}, ErrorType.CLI_ERROR, "reported an error"),
    ],
)
def test_a_failing_result_says_why(event: dict[str, Any], kind: ErrorType, says: str) -> None:
    got, error = failure(event, exit_code=1, stderr_tail="details")
    assert got is kind
    assert says in error


def test_a_session_that_cannot_be_resumed_says_so() -> None:
    words = f"No conversation found with session ID: {SESSION}"
    event = builders.failed("error_during_execution", None, words, num_turns=0)
    result = shown(report(event, resumed=SESSION, exit_code=1))
    assert result.error_type is ErrorType.CLI_ERROR
    assert result.session_id is None
    assert result.error is not None
    assert f"Session {SESSION} could not be resumed. It said: {words}." in result.error
    assert "leave session_id out" in result.error


def test_an_answer_in_a_result_that_failed_is_kept() -> None:
    partly = outcome(builders.result("half an answer", subtype="error_max_turns"))
    assert (partly.success, partly.result) == (False, "half an answer")
    long = outcome(builders.result("x" * 5000, is_error=True))
    assert long.result == "x" * 5000
    assert len(long.error or "") < 3000
    short = outcome(builders.api_error(500, "API Error"))
    assert short.result == ""


# No result


def test_a_timeout_says_how_to_go_on() -> None:
    result = outcome(builders.text("hm"), ending=Ending.DEADLINE, exit_code=143)
    assert (result.error_type, result.session_id) == (ErrorType.TIMEOUT, SESSION)
    assert result.error is not None
    assert result.error.startswith("Timed out after 300 s.\nIts session is kept. Resume it: ")
    assert RESUME in result.error
    assert "timeout_seconds=600" in result.error
    assert "dispatch_async" in result.error


def test_a_timeout_before_the_session_began_promises_none() -> None:
    result = shown(report(ending=Ending.DEADLINE))
    assert (result.error_type, result.session_id) == (ErrorType.TIMEOUT, None)
    assert "No session had begun" in (result.error or "")
    assert "dispatch_session" not in (result.error or "")


def test_the_longest_timeout_is_not_exceeded() -> None:
    assert "timeout_seconds=7200 " in failure(ending=Ending.DEADLINE, timeout_s=5000.0)[1]


def test_a_timeout_amid_retries_names_the_api_error() -> None:
    error = failure(builders.retry(529, attempt=3), ending=Ending.DEADLINE)[1]
    assert "Meanwhile the API failed: API error 529 (overloaded), retry 3 of 10" in error


@pytest.mark.parametrize(
    ("ending", "kind"),
    [(Ending.DEADLINE, ErrorType.TIMEOUT), (Ending.CANCELLED, ErrorType.CANCELLED)],
)
def test_a_result_that_our_interrupt_made_is_no_answer(ending: Ending, kind: ErrorType) -> None:
    result = outcome(builders.tool_use("Bash"), INTERRUPTED, ending=ending, exit_code=1)
    assert (result.success, result.result, result.error_type) == (False, "", kind)
    assert result.cost_usd == 0.125


def test_a_result_that_failed_before_the_deadline_outranks_it() -> None:
    kind, _ = failure(builders.api_error(529, "Overloaded"), ending=Ending.DEADLINE)
    assert kind is ErrorType.CLI_ERROR


@pytest.mark.parametrize(("who", "says"), [("", "the caller"), ("the server's exit",) * 2])
def test_a_cancelled_run_says_who_and_how_to_go_on(who: str, says: str) -> None:
    kind, error = failure(ending=Ending.CANCELLED, cancelled_by=who, exit_code=143)
    assert kind is ErrorType.CANCELLED
    assert error.startswith(f"Cancelled by {says}.\n")
    assert RESUME in error


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({"exit_code": 0}, "ended with exit code 0 without a result"),
        ({"exit_code": 1, "stderr_tail": "Error: x\n"}, "\nstderr: Error: x"),
        ({"exit_code": 1, "stderr_tail": "\x1b[1;31mError\x1b[0m: x\n"}, "\nstderr: Error: x"),
        ({"exit_code": 1, "stderr_tail": "y" * 65536 + "end"}, "yend"),
        (
            {"exit_code": 1, "stderr_tail": "\x1b[1mtoken=\x1b[0mab12cd34" + "y" * 1995},
            "\nstderr: token=ab12…",
        ),
        ({"exit_code": -9}, "was ended by SIGKILL without a result"),
        ({"exit_code": 137}, "out of memory"),
        ({"exit_code": 143}, "was ended by SIGTERM"),
        ({"exit_code": 255}, "exit code 255"),
        ({"exit_code": None}, "Claude Code ended without a result"),
        (
            {"exit_code": 1, "stderr_tail": "error: unknown option '--session-id'"},
            "Ask your user to run: claude update",
        ),
    ],
)
def test_a_run_without_a_result_says_what_is_known(facts: dict[str, Any], says: str) -> None:
    kind, error = failure(**facts)
    assert kind is ErrorType.CLI_ERROR
    assert says in error
    assert len(error) < 3000


def test_a_key_in_what_the_api_or_the_program_says_is_masked() -> None:
    _, error = failure(builders.api_error(400, "Bad key sk-ant-api03-abcdefgh"), exit_code=1)
    assert "It said: Bad key sk-a…." in error
    error = shown(report(printed=b"api_key=abcd1234\n")).error or ""
    assert "\nstdout: api_key=ab…" in error


def test_a_key_in_a_denied_call_is_masked_and_one_in_the_answer_stays() -> None:
    call = builders.denial("Bash") | {
        "tool_input": {"command": "curl -H 'Authorization: Bearer abcd12345678'"}
    }
    event = builders.result("The token is ghp_abcdefghij.", permission_denials=[call])
    result = outcome(event)
    assert [c.input for c in result.denied_calls or ()] == [
        """{"command":"curl -H 'Authorization: Bearer abc…'"}"""
    ]
    advice = shown(report(event)).hint or ""
    assert "or a key in it" in advice
    assert "abcd12345678" not in advice
    assert result.result == "The token is ghp_abcdefghij."


def test_a_run_whose_supervision_died_can_be_resumed() -> None:
    kind, error = failure(builders.text("hm"), ending=Ending.GUARD_LOST, exit_code=None)
    assert kind is ErrorType.LOST
    assert "supervises Claude Code was killed" in error
    assert RESUME in error


def test_what_was_printed_instead_of_a_result_is_shown() -> None:
    result = shown(report(printed=b"2.1.330 (Claude Code)\n"))
    assert result.error is not None
    assert "\nstdout: 2.1.330 (Claude Code)" in result.error
    assert "agent-dispatch doctor" in result.error
    assert result.session_id is None


def test_a_cut_line_explains_the_missing_result() -> None:
    seen = msgspec.structs.replace(builders.transcript(builders.init()).seen(), cut_lines=1)
    result = shown(msgspec.structs.replace(report(), seen=seen))
    assert "was longer than any may be" in (result.error or "")
    assert RESUME in (result.error or "")


# Never started


@pytest.mark.parametrize(
    ("stage", "number", "kind", "says"),
    [
        (StartStage.DIRECTORY, None, ErrorType.NOT_FOUND, "agent-dispatch remove infra"),
        (StartStage.CHDIR, errno.EACCES, ErrorType.NOT_FOUND, "/srv/infra (why)"),
        (StartStage.CLI_MISSING, None, ErrorType.NOT_FOUND, "npm install -g"),
        (StartStage.CLI_NOT_EXECUTABLE, None, ErrorType.NOT_FOUND, "executable"),
        (StartStage.EXEC, errno.ENOENT, ErrorType.NOT_FOUND, "could not be executed"),
        (StartStage.EXEC, errno.E2BIG, ErrorType.CLI_ERROR, "could not be executed"),
        (StartStage.FORK, errno.EAGAIN, ErrorType.CLI_ERROR, "max_concurrency"),
        (StartStage.FORK, errno.EMFILE, ErrorType.CLI_ERROR, "ulimit -n"),
        (StartStage.DIRECTORY, errno.EMFILE, ErrorType.CLI_ERROR, "ulimit -n"),
    ],
)
def test_a_run_that_could_not_start_says_what_to_mend(
    stage: StartStage, number: int | None, kind: ErrorType, says: str
) -> None:
    why = StartFailure(stage=stage, errno=number, text="why")
    result = shown(report(ending=Ending.START_FAILED, start_failure=why, exit_code=None))
    assert (result.success, result.error_type, result.session_id) == (False, kind, None)
    assert says in (result.error or "")
    assert "(why)" in (result.error or "")


def test_a_refused_dispatch_carries_its_reason() -> None:
    assert refused("infra", "no").error_type is ErrorType.CLI_ERROR
    assert refused("infra", "no", ErrorType.NOT_FOUND) == DispatchResult(
        agent="infra", success=False, result="", error="no", error_type=ErrorType.NOT_FOUND
    )


def test_a_dispatch_too_deep_names_the_setting() -> None:
    result = recursion_refused("infra", 3, 3)
    assert result.error_type is ErrorType.RECURSION
    assert "max_dispatch_depth is 3" in (result.error or "")
    unreadable = recursion_refused("infra", UNREADABLE_DEPTH, 3)
    assert "AGENT_DISPATCH_DEPTH is not a number" in (unreadable.error or "")


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
    kept = [*(result.earlier_results or []), result.result]
    answers = [event.result for event in run.seen.results if event.is_error is False]
    assert [text for text in kept if text in answers and text] == [a for a in answers if a]


def test_a_later_turn_costs_what_it_adds_to_the_total_if_its_own_usage_is_not_told() -> None:
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


def test_words_in_place_of_an_empty_result_are_told() -> None:
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


# What is to blame for a deadline


def test_a_hook_that_does_not_end_is_to_blame_and_no_mcp_server() -> None:
    begun = {
        "type": "system",
        "subtype": "hook_started",
        "hook_id": "h",
        "hook_name": "SessionStart:startup",
    }
    kind, error = failure(begun, ending=Ending.DEADLINE)
    assert kind is ErrorType.TIMEOUT
    assert "SessionStart:startup" in error
    assert "MCP" not in error
    ended = begun | {"subtype": "hook_response"}
    assert "SessionStart" not in failure(begun, ended, ending=Ending.DEADLINE)[1]


@pytest.mark.parametrize("told", [builders.retry(429, error="rate_limit"), builders.retry(402)])
def test_a_limit_until_the_deadline_is_a_limit(told: dict[str, Any]) -> None:
    aborted = builders.failed("error_during_execution", "aborted_streaming")
    for events in ([told], [told, aborted]):
        kind, error = failure(builders.init(), *events, ending=Ending.DEADLINE)
        assert kind is ErrorType.USAGE_LIMIT
        assert "300 s" in error
        assert builders.SESSION in error


def test_a_limit_that_was_over_before_the_deadline_is_not_to_blame() -> None:
    events = [builders.init(), builders.retry(429, error="rate_limit"), builders.text("on it")]
    assert failure(*events, ending=Ending.DEADLINE)[0] is ErrorType.TIMEOUT
    assert failure(builders.retry(529), ending=Ending.DEADLINE)[0] is ErrorType.TIMEOUT


def test_refused_credentials_until_the_deadline_are_a_matter_of_login() -> None:
    kind, _ = failure(builders.init(), builders.retry(401), ending=Ending.DEADLINE)
    assert kind is ErrorType.AUTH


@pytest.mark.parametrize(
    "words",
    [
        "You've hit your limit · resets Dec 2, 9am",
        "Your limit will reset at 1pm (Europe/Berlin).",
        "Too many requests, try again in 20 minutes",
        "Limit reached. Please wait until 9am",
    ],
)
def test_a_time_that_the_limit_itself_names_is_not_contradicted(words: str) -> None:
    error = failure(builders.api_error(429, words))[1]
    assert words in error
    assert "not known when" not in error


def test_commands_about_an_agent_with_a_name_of_two_words_can_be_pasted() -> None:
    agent = msgspec.structs.replace(report().agent, name="my agent")
    why = StartFailure(stage=StartStage.DIRECTORY, text="why")
    gone = report(agent=agent, ending=Ending.START_FAILED, start_failure=why, exit_code=None)
    late = report(agent=agent, ending=Ending.DEADLINE, exit_code=None)
    assert "agent-dispatch remove 'my agent'" in (shown(gone).error or "")
    assert "agent-dispatch update 'my agent' --timeout" in (
        worded(classify(late), in_shell).error or ""
    )
