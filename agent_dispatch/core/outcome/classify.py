"""What a run means: its report to the one result that its caller gets.

The last `result` event decides, by its fields; the exit code and stderr are asked only when there
is none, and words in a text never. Which fields mean what was measured with Claude Code 2.1.330.
"""

import shlex
from typing import Any

import msgspec

from agent_dispatch.core.masking import mask
from agent_dispatch.core.next_step import resume
from agent_dispatch.core.outcome.claims import claims_action
from agent_dispatch.core.outcome.denials import permission_advice
from agent_dispatch.core.outcome.evidence import evidence_of
from agent_dispatch.core.outcome.failure import (
    MAX_SAID_CHARS,
    describe_failure,
    resets_at,
    where_hooks_are,
)
from agent_dispatch.core.outcome.json_answer import parse_answer
from agent_dispatch.core.outcome.report import Ending, RunReport
from agent_dispatch.core.stream.events import ResultEvent
from agent_dispatch.core.stream.progress_text import one_line
from agent_dispatch.model.dispatch import (
    COST_DECIMALS,
    DeniedCall,
    DispatchResult,
    ErrorType,
)
from agent_dispatch.model.next_step import NextStep, run

_OUR_ENDINGS = frozenset({Ending.DEADLINE, Ending.CANCELLED, Ending.INTERRUPTED, Ending.AUTH})
"""Those before which we may have sent an interrupt."""


_MAX_DENIED_CALLS = 50
_NO_WORK = ("StructuredOutput", "ToolSearch")
"""Tools that hand over the answer, or look for other tools."""


def classify(report: RunReport) -> DispatchResult:
    """Return the result of a run: an answer that arrived outranks everything that came after it."""
    results = _without_own_abort(report)
    last = results[-1] if results else None
    if last is not None and succeeded(last) and report.ending is not Ending.AUTH:
        if not report.json_schema or _structured(results) is not msgspec.UNSET:
            return _success(report, results)
        return _without_structure(report, results)
    return _failure(report, results)


def cancelled(report: RunReport, by: str) -> DispatchResult:
    """Return the result of a run that somebody cancelled."""
    return classify(msgspec.structs.replace(report, cancelled_by=by))


def succeeded(result: ResultEvent) -> bool:
    """Tell whether a model was asked and answered; `subtype` alone says "success" to API errors."""
    if result.is_error is None:
        # Other versions may leave it out; then nothing but an answer, or the word, is a success.
        claimed = result.subtype == "success" or bool(result.result)
    else:
        claimed = not result.is_error
    failed = result.subtype.startswith("error") or _aborted(result)
    return claimed and not failed and result.num_turns != 0


def _without_own_abort(report: RunReport) -> tuple[ResultEvent, ...]:
    """Return the results without the one that our own interrupt made: it is no answer."""
    results = report.seen.results
    if not results or report.ending not in _OUR_ENDINGS:
        return results
    last = results[-1]
    # Other versions may not name the reason.
    is_nameless = last.terminal_reason is None and last.subtype == "error_during_execution"
    return results[:-1] if _aborted(last) or (is_nameless and last.num_turns) else results


def _aborted(result: ResultEvent) -> bool:
    return (result.terminal_reason or "").startswith("aborted")


def _success(report: RunReport, results: tuple[ResultEvent, ...]) -> DispatchResult:
    answers = _answers(results)
    text = answers[-1] if answers else ""
    parsed = _structured(results)
    if parsed is msgspec.UNSET and report.response_format == "json":
        parsed = parse_answer(text)
    denied, steps = _denied(report)
    went_on = _cut_short(report, results)
    hints = [
        "" if text else "The agent ended without an answer in words.",
        _stopped_by_hook(report, results[-1]),
        went_on,
        _unfounded(report, text),
        _steered(report),
        denied,
        _failed_servers(report),
        _left(report),
        _lost_parts(report),
    ]
    if went_on:
        steps = [resume(report.agent, report.seen.session_id), *steps]
    if report.response_format == "json" and parsed is msgspec.UNSET:
        hints.insert(0, "The answer is not one JSON value; it is in `result` as text.")
    cost_usd = _cost_usd(report)
    return DispatchResult(
        agent=report.agent.name,
        success=True,
        result=text,
        session_id=report.seen.session_id,
        cost_usd=cost_usd,
        duration_ms=report.duration_ms,
        num_turns=report.seen.num_turns,
        parsed_result=parsed,
        denied_tools=_denied_tools(report),
        denied_calls=_denied_calls(report),
        evidence=evidence_of(report),
        hint=_joined(hints),
        budget_exceeded=_over_budget(report, cost_usd),
        left_running=report.left_running or None,
        earlier_results=answers[:-1] or None,
        next_steps=[*steps, *_why_servers_failed(report)] or None,
    )


def _steered(report: RunReport) -> str:
    """Say that the answer is to more than was asked. So no other call gets it from the cache."""
    if not report.messages:
        return ""
    return (
        f"While it worked, the agent was told something more ({report.messages} message(s)); they"
        " are in the job's record."
    )


def _unfounded(report: RunReport, text: str) -> str:
    """Say that the answer claims what the run cannot have done."""
    calls = report.seen.calls
    if calls is None or report.seen.cut_lines or report.resumed or not report.is_first_turn:
        return ""
    if calls.total > sum(calls.tools.get(tool, 0) for tool in _NO_WORK) or not claims_action(text):
        return ""
    return (
        "The answer says that something was done, but the run made no tool call, so it was not done"
        " in this run. Check it, or ask the agent to do it."
    )


def _without_structure(report: RunReport, results: tuple[ResultEvent, ...]) -> DispatchResult:
    """Return the result of a run that answered, but not in the form that was asked for.

    Claude Code 2.1.330 reports a success then (measured); the text is kept, it was paid for.
    """
    answered = _success(report, results)
    return msgspec.structs.replace(
        answered,
        success=False,
        error=(
            "The agent answered, but did not deliver the structured output that was asked for; its"
            " text is in `result`. Ask for it in words as well, or make json_schema simpler."
        ),
        error_type=ErrorType.SCHEMA,
        next_steps=[
            resume(report.agent, report.seen.session_id),
            *(answered.next_steps or ()),
        ],
    )


def _structured(results: tuple[ResultEvent, ...]) -> Any | msgspec.UnsetType:
    """Return the newest structured output: a turn on a background task's end may come after it."""
    for result in reversed(results):
        if succeeded(result) and result.structured_output is not msgspec.UNSET:
            return result.structured_output
    return msgspec.UNSET


def _failure(report: RunReport, results: tuple[ResultEvent, ...]) -> DispatchResult:
    last = results[-1] if results else None
    failure = describe_failure(report, last)
    earlier = _answers(results)
    denied, steps = _denied(report)
    if failure.error_type is ErrorType.PERMISSION:
        denied, steps = "", []  # The failure says it.
    hints = [
        denied,
        _failed_servers(report),
        _left(report),
        "What the agent answered before that is in `earlier_results`." if earlier else "",
        _lost_parts(report),
    ]
    cost_usd = _cost_usd(report)
    return DispatchResult(
        agent=report.agent.name,
        success=False,
        result=_unfinished_answer(report, last, failure.error_type),
        session_id=report.seen.session_id,
        cost_usd=cost_usd,
        duration_ms=report.duration_ms,
        num_turns=report.seen.num_turns,
        error=failure.text,
        error_type=failure.error_type,
        denied_tools=_denied_tools(report),
        denied_calls=_denied_calls(report),
        evidence=evidence_of(report),
        resets_at=_reset_time(report) if failure.error_type is ErrorType.USAGE_LIMIT else None,
        hint=_joined(hints),
        budget_exceeded=_over_budget(report, cost_usd),
        left_running=report.left_running or None,
        earlier_results=earlier or None,
        next_steps=[*failure.next_steps, *steps, *_why_servers_failed(report)] or None,
    )


def _answers(results: tuple[ResultEvent, ...]) -> list[str]:
    return [result.result for result in results if succeeded(result) and result.result]


def _unfinished_answer(report: RunReport, last: ResultEvent | None, error_type: ErrorType) -> str:
    """Return what the agent said in the turn that failed, where that was paid for."""
    if report.ending is Ending.INTERRUPTED and error_type is ErrorType.CANCELLED:
        return report.seen.last_text
    if error_type is ErrorType.BUDGET:
        return report.seen.unanswered_text
    if last is None or last.num_turns == 0 or succeeded(last):
        return ""
    return last.result if not last.is_error or len(last.result) > MAX_SAID_CHARS else ""


def _cost_usd(report: RunReport) -> float | None:
    """Return this run's cost; what the CLI calls the total includes earlier runs of the session."""
    if report.seen.usage_cost_usd is not None:
        return round(report.seen.usage_cost_usd, COST_DECIMALS)
    total_usd, before_usd = report.seen.session_cost_usd, report.seen.cost_before_usd
    if total_usd is None or (before_usd is None and report.resumed is not None):
        return None
    return round(total_usd - (before_usd or 0.0), COST_DECIMALS)


def _reset_time(report: RunReport) -> str | None:
    moment = resets_at(report)
    return None if moment is None else moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _over_budget(report: RunReport, cost_usd: float | None) -> bool | None:
    cap = report.agent.max_budget_usd
    return True if cap and cost_usd is not None and cost_usd > cap else None


def _denied_tools(report: RunReport) -> list[str] | None:
    return list(dict.fromkeys(report.seen.denied_tools)) or None


def _denied(report: RunReport) -> tuple[str, list[NextStep]]:
    denied = report.seen.denied_tools
    if not denied:
        return "", []
    why, steps = permission_advice(report.agent, report.seen, report.inherited, report.job_id)
    what = (
        f"{len(denied)} tool call(s) were denied by permissions:"
        f" {', '.join(dict.fromkeys(denied))}. The result may be incomplete. {why}"
    )
    return what.rstrip(), steps


def _denied_calls(report: RunReport) -> list[DeniedCall] | None:
    calls = [DeniedCall(denial.tool, mask(denial.input)) for denial in report.seen.denials]
    return list(dict.fromkeys(call for call in calls if call.input))[:_MAX_DENIED_CALLS] or None


def _failed_servers(report: RunReport) -> str:
    """Say which MCP servers the agent had to do without: it may have been registered for them."""
    failed = report.seen.failed_servers
    if not failed:
        return ""
    names = ", ".join(f"{one_line(server.name)} ({server.status})" for server in failed[:10])
    more = f" and {len(failed) - 10} more" if len(failed) > 10 else ""
    return f"MCP servers that did not start, so the agent had none of their tools: {names}{more}."


def _why_servers_failed(report: RunReport) -> list[NextStep]:
    if not report.seen.failed_servers:
        return []
    return [run(f"cd {shlex.quote(report.agent.directory)} && claude mcp list", report.agent.name)]


def _left(report: RunReport) -> str:
    if not report.left_running:
        return ""
    return (
        f"The agent left {report.left_running} process(es) running; they were ended with the run."
        " What is to outlive a dispatch must be started outside of it."
    )


def _lost_parts(report: RunReport) -> str:
    cut = (
        f"{report.seen.cut_lines} line(s) of output were too long and were cut."
        if report.seen.cut_lines
        else ""
    )
    dropped = (
        f"{report.seen.dropped_results} earlier result(s) are only in the session: there were too"
        " many to keep."
        if report.seen.dropped_results
        else ""
    )
    return f"{cut} {dropped}".strip()


def _cut_short(report: RunReport, results: tuple[ResultEvent, ...]) -> str:
    """Say that the run went on after its answer and did not get to its end."""
    seen = report.seen
    went_on = seen.turn_open or len(results) < len(seen.results)
    if not went_on and not seen.unfinished_tasks:
        return ""
    match report.ending:
        case Ending.DEADLINE:
            why = f"the time was up ({report.timeout_s:g} s)"
        case Ending.CANCELLED | Ending.INTERRUPTED:
            why = f"the dispatch was cancelled by {report.cancelled_by or 'the caller'}"
        case Ending.GUARD_LOST:
            why = "its supervision was lost"
        case _:
            why = f"Claude Code ended (exit code {report.exit_code})"
    what = "a later turn" if went_on else f"{seen.unfinished_tasks} background task(s)"
    return f"The answer was complete, but {what} after it did not finish: {why}."


def _stopped_by_hook(report: RunReport, last: ResultEvent) -> str:
    """Say that a hook ended the run in the agent's place, or that only its last words are left."""
    where = where_hooks_are(report.agent)
    if last.terminal_reason == "hook_stopped":
        return (
            "A hook stopped the run before the agent had finished, so `result` is only what it said"
            f" until then. {where}"
        )
    if last.terminal_reason == "stop_hook_prevented":
        return f"A Stop hook stopped the run; the agent may not have finished. {where}"
    if report.seen.held_by_stop_hook:
        return (
            "A Stop hook refused to let the agent finish, again and again, until Claude Code ended"
            f" the run all the same. What the hook asked for may not be done. {where}"
        )
    if report.seen.words_recovered:
        return "Claude Code reported no final answer; `result` is what the agent said last."
    return ""


def _joined(hints: list[str]) -> str | None:
    return " ".join(hint for hint in hints if hint) or None
