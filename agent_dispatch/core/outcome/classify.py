"""Turns the report of a run into the one result that its caller gets.

The fields of the last `result` event decide. Exit code and stderr count only if there is no such
event, and the words of an answer never count. The meaning of the fields was measured with Claude
Code 2.1.330.
"""

from typing import Any

import msgspec

from agent_dispatch.core.masking import mask
from agent_dispatch.core.outcome.api_failure import resets_at, resume_run
from agent_dispatch.core.outcome.evidence import evidence_of
from agent_dispatch.core.outcome.failure import MAX_CLI_CHARS, describe_failure
from agent_dispatch.core.outcome.hints import (
    cut_short_hint,
    denials_hint,
    failed_servers_hint,
    left_running_hint,
    lost_parts_hint,
    messages_hint,
    stopped_by_hook_hint,
    unfounded_claim_hint,
)
from agent_dispatch.core.outcome.json_answer import parse_answer
from agent_dispatch.core.outcome.report import Ending, RunReport
from agent_dispatch.core.stream.events import ResultEvent
from agent_dispatch.model.dispatch import COST_DECIMALS, DeniedCall, DispatchResult, ErrorType

_OUR_ENDINGS = frozenset({Ending.DEADLINE, Ending.CANCELLED, Ending.INTERRUPTED, Ending.AUTH})
"""Endings before which we may have interrupted the turn."""
_MAX_DENIED_CALLS = 50


def classify(report: RunReport) -> DispatchResult:
    """Return the result of a run; an answer that arrived outranks everything after it."""
    results = _without_own_abort(report)
    last = results[-1] if results else None
    if last is not None and _succeeded(last) and report.ending is not Ending.AUTH:
        if not report.json_schema or _structured_output(results) is not msgspec.UNSET:
            return _success(report, results)
        return _without_structure(report, results)
    return _failure(report, results)


def _succeeded(result: ResultEvent) -> bool:
    """Tell whether a model answered; `subtype` alone is "success" for API errors as well."""
    if result.is_error is None:
        # Other versions may leave it out. Then only an answer, or the word, is a success.
        claimed = result.subtype == "success" or bool(result.result)
    else:
        claimed = not result.is_error
    failed = result.subtype.startswith("error") or _aborted(result)
    return claimed and not failed and result.num_turns != 0


def _without_own_abort(report: RunReport) -> tuple[ResultEvent, ...]:
    """Return the results without the one that our own interrupt caused."""
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
    parsed = _structured_output(results)
    if parsed is msgspec.UNSET and report.response_format == "json":
        parsed = parse_answer(text)
    denied, steps = denials_hint(report)
    servers, server_steps = failed_servers_hint(report)
    cut_short = cut_short_hint(report, results)
    hints = [
        "" if text else "The agent ended without an answer in words.",
        stopped_by_hook_hint(report, results[-1]),
        cut_short,
        unfounded_claim_hint(report, text),
        messages_hint(report),
        denied,
        servers,
        left_running_hint(report),
        lost_parts_hint(report),
    ]
    if cut_short:
        steps = [resume_run(report), *steps]
    if report.response_format == "json" and parsed is msgspec.UNSET:
        hints.insert(0, "The answer is not one JSON value; it is in `result` as text.")
    return msgspec.structs.replace(
        _measured(report),
        success=True,
        result=text,
        parsed_result=parsed,
        hint=" ".join(filter(None, hints)) or None,
        earlier_results=answers[:-1] or None,
        next_steps=[*steps, *server_steps] or None,
    )


def _without_structure(report: RunReport, results: tuple[ResultEvent, ...]) -> DispatchResult:
    """Return the result of a run that answered without the structured output.

    Claude Code 2.1.330 reports a success then (measured). The text is kept: it was paid for.
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
        next_steps=[resume_run(report), *(answered.next_steps or ())],
    )


def _structured_output(results: tuple[ResultEvent, ...]) -> Any | msgspec.UnsetType:
    """Return the newest structured output; later turns of background tasks may have none."""
    for result in reversed(results):
        if _succeeded(result) and result.structured_output is not msgspec.UNSET:
            return result.structured_output
    return msgspec.UNSET


def _failure(report: RunReport, results: tuple[ResultEvent, ...]) -> DispatchResult:
    last = results[-1] if results else None
    failure = describe_failure(report, last)
    earlier = _answers(results)
    denied, steps = denials_hint(report)
    servers, server_steps = failed_servers_hint(report)
    if failure.error_type is ErrorType.PERMISSION:
        denied, steps = "", []  # The text of the failure says it.
    reset = resets_at(report) if failure.error_type is ErrorType.USAGE_LIMIT else None
    hints = [
        denied,
        servers,
        left_running_hint(report),
        "Earlier answers of the agent are in `earlier_results`." if earlier else "",
        lost_parts_hint(report),
    ]
    return msgspec.structs.replace(
        _measured(report),
        result=_unfinished_answer(report, last, failure.error_type),
        error=failure.text,
        error_type=failure.error_type,
        resets_at=f"{reset:%Y-%m-%dT%H:%M:%SZ}" if reset else None,
        hint=" ".join(filter(None, hints)) or None,
        earlier_results=earlier or None,
        next_steps=[*failure.next_steps, *steps, *server_steps] or None,
    )


def _measured(report: RunReport) -> DispatchResult:
    """Return a failed result with the facts that every result of a run has."""
    seen, cost_usd, cap_usd = report.seen, _cost_usd(report), report.agent.max_budget_usd
    is_over = bool(cap_usd and cost_usd is not None and cost_usd > cap_usd)
    calls = [DeniedCall(each.tool, mask(each.input)) for each in seen.denials if each.input]
    return DispatchResult(
        agent=report.agent.name,
        success=False,
        result="",
        session_id=seen.session_id,
        cost_usd=cost_usd,
        duration_ms=report.duration_ms,
        num_turns=seen.num_turns,
        denied_tools=list(dict.fromkeys(seen.denied_tools)) or None,
        denied_calls=list(dict.fromkeys(calls))[:_MAX_DENIED_CALLS] or None,
        evidence=evidence_of(report),
        budget_exceeded=is_over or None,
        left_running=report.left_running or None,
    )


def _answers(results: tuple[ResultEvent, ...]) -> list[str]:
    return [result.result for result in results if _succeeded(result) and result.result]


def _unfinished_answer(report: RunReport, last: ResultEvent | None, error_type: ErrorType) -> str:
    """Return the agent's text in the turn that failed, if it was paid for."""
    if report.ending is Ending.INTERRUPTED and error_type is ErrorType.CANCELLED:
        return report.seen.last_text
    if error_type is ErrorType.BUDGET:
        return report.seen.unanswered_text
    if last is None or last.num_turns == 0 or _succeeded(last):
        return ""
    return last.result if not last.is_error or len(last.result) > MAX_CLI_CHARS else ""


def _cost_usd(report: RunReport) -> float | None:
    """Return this run's cost; the CLI's total includes earlier runs of the session."""
    seen = report.seen
    if seen.usage_cost_usd is not None:
        return round(seen.usage_cost_usd, COST_DECIMALS)
    total_usd, before_usd = seen.session_cost_usd, seen.cost_before_usd
    if total_usd is None or (before_usd is None and report.resumed is not None):
        return None
    return round(total_usd - (before_usd or 0.0), COST_DECIMALS)
