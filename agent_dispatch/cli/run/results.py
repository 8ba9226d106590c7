"""Show the result of a dispatch, and derive the exit status."""

import signal
from collections.abc import Iterable

from agent_dispatch.cli.errors import all_tips, error_parts, write_error
from agent_dispatch.cli.jobs.display import short_id
from agent_dispatch.cli.output import (
    Colour,
    counted,
    dollars,
    fit,
    one_line,
    remark,
    write_answer,
    write_lines,
)
from agent_dispatch.cli.shell import Shell
from agent_dispatch.model.dialogue import DialogueResult
from agent_dispatch.model.dispatch import DispatchResult, ErrorType, Evidence
from agent_dispatch.model.parallel import ParallelResult

_TIMEOUT_STATUS = 124
_DETAIL_LINES = 12
_DETAIL_COLUMNS = 320
"""Four rows of a narrow terminal."""


def exit_status(failures: Iterable[ErrorType | None], signum: signal.Signals | None = None) -> int:
    """0 success, 124 if all failures are timeouts, 128 + n if ended by signal n, 1 otherwise."""
    if signum is not None:
        return 128 + signum
    statuses = {_TIMEOUT_STATUS if kind is ErrorType.TIMEOUT else 1 for kind in failures}
    return min(statuses, default=0)


def failures_of(*results: DispatchResult | None) -> list[ErrorType | None]:
    """The error types of the results that failed."""
    return [result.error_type for result in results if result and not result.success]


def _show_failure(shell: Shell, result: DispatchResult | DialogueResult) -> None:
    """Say what went wrong with a run, if anything did, as the last thing on stderr.

    Long details are cut where the record of a job has all of them.
    """
    if result.error is None:
        return
    line, details = error_parts(result.error, result.error_type or "")
    tips = all_tips(result.next_steps)
    shown = _shortened(details) if result.job_id else details
    if result.job_id and shown != details:
        tips.append(f"all details: `agent-dispatch job {short_id(result.job_id)} --json`")
    write_error(shell, shown, line, tips)


def _shortened(details: str) -> str:
    """Cut text for a narrow terminal: long lines, and all but the first and last lines."""
    lines = [fit(line, _DETAIL_COLUMNS) for line in details.split("\n")]
    if (left_out := len(lines) - _DETAIL_LINES + 1) > 1:
        half = _DETAIL_LINES // 2
        lines[half : half + left_out] = [f"... {counted(left_out, 'line')} left out"]
    return "\n".join(lines)


def _show_hint(shell: Shell, result: DispatchResult | DialogueResult) -> None:
    if result.hint:
        remark(shell, f"hint: {result.hint}", Colour.DOUBTFUL)
    # With an error, `_show_failure` shows them.
    for tip in all_tips(result.next_steps if result.error is None else None):
        remark(shell, f"tip: {tip}")


def show_result(shell: Shell, result: DispatchResult) -> None:
    """Print the answer on stdout, and remarks about it on stderr."""
    write_answer(shell, result.result)
    for text in _remarks(result):
        remark(shell, text, Colour.DOUBTFUL)
    _show_hint(shell, result)
    if facts := _facts(result):
        remark(shell, one_line(f"{result.agent}: {', '.join(facts)}"), Colour.FAINT)
    _show_failure(shell, result)


def show_parallel(shell: Shell, outcome: ParallelResult) -> None:
    """Print several answers on stdout, and remarks about them on stderr."""
    results = outcome.individual_results
    for number, result in enumerate(results, start=1):
        heading = f"## {number}. {one_line(result.agent)}"
        write_lines(shell, [heading if number == 1 else f"\n{heading}", ""])
        show_result(shell, result)
    if outcome.aggregated is not None:
        write_lines(shell, [f"\n## All together, by {one_line(outcome.aggregated.agent)}", ""])
        show_result(shell, outcome.aggregated)
    failed = sum(not result.success for result in results)
    denied = sum(result.success and bool(result.denied_tools) for result in results)
    # Tasks that are the same share a run, which is paid for once.
    shown = [result for result in (*results, outcome.aggregated) if result is not None]
    paid = {result.job_id or number: result for number, result in enumerate(shown)}
    costs = [result.cost_usd for result in paid.values() if result.cost_usd is not None]
    cost = f", {dollars(sum(costs))}" if costs else ""
    tasks = counted(len(results), "task")
    remark(shell, f"{tasks}, {failed} failed, {denied} denied{cost}", Colour.FAINT)


def show_dialogue(shell: Shell, result: DialogueResult) -> None:
    """Print what the agents said on stdout, and remarks about it on stderr."""
    for number, turn in enumerate(result.conversation):
        heading = f"## Round {turn.round}: {one_line(turn.agent)} ({turn.role})"
        write_lines(shell, [heading if number == 0 else f"\n{heading}", ""])
        write_answer(shell, turn.message)
    _show_hint(shell, result)
    cost = "" if result.total_cost_usd is None else f", {dollars(result.total_cost_usd)}"
    seconds = f"{result.total_duration_ms / 1000:.1f} s"
    ending = "settled" if result.resolved else "not settled"
    remark(shell, f"{counted(result.rounds, 'round')}, {ending}, {seconds}{cost}", Colour.FAINT)
    for agent, session_id in (result.sessions or {}).items():
        remark(shell, one_line(f"{agent}: session {session_id}"), Colour.FAINT)
    if result.job_id is not None:
        remark(shell, f"job {short_id(result.job_id)}", Colour.FAINT)
    _show_failure(shell, result)


def _facts(result: DispatchResult) -> list[str]:
    """Turns, time, cost, session and job, as far as known."""
    facts = [
        f"cached, from {result.cached_at}" if result.cached else None,
        None if result.num_turns is None else counted(result.num_turns, "turn"),
        *_evidence_facts(result.evidence),
        None if result.duration_ms is None else f"{result.duration_ms / 1000:.1f} s",
        None if result.cost_usd is None else dollars(result.cost_usd),
        None if result.session_id is None else f"session {result.session_id}",
        None if result.job_id is None else f"job {short_id(result.job_id)}",
    ]
    return [fact for fact in facts if fact is not None]


def _evidence_facts(evidence: Evidence | None) -> list[str]:
    """Counts of what the run was seen to do."""
    if evidence is None:
        return []
    lists = (("changed file", evidence.files_changed), ("commit", evidence.commits))
    return [
        counted(evidence.tool_calls, "tool call"),
        *(counted(len(items), noun) for noun, items in lists if items),
    ]


def _remarks(result: DispatchResult) -> list[str]:
    remarks = []
    if result.earlier_results:
        earlier = counted(len(result.earlier_results), "earlier answer")
        remarks.append(f"note: this run gave {earlier}; see with --json")
    if result.denied_tools:
        remarks.append(f"warning: tools denied: {', '.join(result.denied_tools)}")
    if result.verified:
        remarks.append("note: the verify command passed")
    if result.budget_exceeded:
        remarks.append("warning: this run cost more than its cap")
    if result.left_running:
        remarks.append(
            f"note: the agent left processes running; they were ended: {result.left_running}"
        )
    return remarks
