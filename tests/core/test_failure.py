import errno
from typing import Any

import msgspec
import pytest

from agent_dispatch.cli.next_steps import in_shell
from agent_dispatch.core.command import UNREADABLE_DEPTH
from agent_dispatch.core.next_step import worded
from agent_dispatch.core.outcome.classify import classify
from agent_dispatch.core.outcome.refusal import recursion_refused, refused
from agent_dispatch.core.outcome.report import Ending, StartFailure, StartStage
from agent_dispatch.model.dispatch import DispatchResult, ErrorType
from tests.core import builders
from tests.core.builders import RESUME, SESSION, agent, failure, outcome, report, shown

INTERRUPTED = builders.failed("error_during_execution", "aborted_tools", "[ede_diagnostic] ...")


# Login and limits


def credentials_refused(words: str, **changes: Any) -> list[dict[str, Any]]:
    report = builders.text(words, error="authentication_failed", is_api_error_message=True)
    return [report, builders.api_error(None, words, **changes)]


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
def test_a_result_that_our_interrupt_caused_is_not_an_answer(
    ending: Ending, kind: ErrorType
) -> None:
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


def test_output_without_a_result_is_shown() -> None:
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
def test_a_run_that_could_not_start_says_how_to_fix_it(
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


# What is to blame for a deadline


def test_a_hook_that_does_not_end_is_blamed_and_not_an_mcp_server() -> None:
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


@pytest.mark.parametrize("retry", [builders.retry(429, error="rate_limit"), builders.retry(402)])
def test_a_limit_until_the_deadline_is_a_limit(retry: dict[str, Any]) -> None:
    aborted = builders.failed("error_during_execution", "aborted_streaming")
    for events in ([retry], [retry, aborted]):
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
