"""The hints of a result: what its caller should know in addition to the answer or the error."""

import shlex

from agent_dispatch.core.outcome.claims import claims_action
from agent_dispatch.core.outcome.denials import permission_advice
from agent_dispatch.core.outcome.failure import where_hooks_are
from agent_dispatch.core.outcome.report import Ending, RunReport
from agent_dispatch.core.stream.events import ResultEvent
from agent_dispatch.core.stream.progress_text import one_line
from agent_dispatch.model.next_step import NextStep, run

_NOT_WORK = ("StructuredOutput", "ToolSearch")
"""Tools that deliver the answer or search for other tools."""
_NAMED_SERVERS = 10


def messages_hint(report: RunReport) -> str:
    """Say that messages influenced the answer; the hint also keeps it out of the cache."""
    if not report.messages:
        return ""
    return (
        f"The agent got {report.messages} message(s) while it worked; they are in the job's record."
    )


def unfounded_claim_hint(report: RunReport, text: str) -> str:
    """Say that the answer claims an action, but the run made no tool call."""
    calls = report.seen.calls
    if calls is None or report.seen.cut_lines or report.resumed or not report.is_first_turn:
        return ""
    if calls.total > sum(calls.tools.get(tool, 0) for tool in _NOT_WORK) or not claims_action(text):
        return ""
    return (
        "The answer says that something was done, but the run made no tool call, so it was not done"
        " in this run. Check it, or ask the agent to do it."
    )


def denials_hint(report: RunReport) -> tuple[str, list[NextStep]]:
    """Say which tools were denied and why; also return the steps that would allow them."""
    denied = report.seen.denied_tools
    if not denied:
        return "", []
    why, steps = permission_advice(report.agent, report.seen, report.inherited, report.job_id)
    what = (
        f"{len(denied)} tool call(s) were denied by permissions:"
        f" {', '.join(dict.fromkeys(denied))}. The result may be incomplete. {why}"
    )
    return what.rstrip(), steps


def failed_servers_hint(report: RunReport) -> tuple[str, list[NextStep]]:
    """Name the MCP servers that did not start; also return how to see why."""
    failed = report.seen.failed_servers
    if not failed:
        return "", []
    names = ", ".join(
        f"{one_line(server.name)} ({server.status})" for server in failed[:_NAMED_SERVERS]
    )
    left_out = len(failed) - _NAMED_SERVERS
    more = f" and {left_out} more" if left_out > 0 else ""
    what = f"MCP servers that did not start, so the agent had none of their tools: {names}{more}."
    command = f"cd {shlex.quote(report.agent.directory)} && claude mcp list"
    return what, [run(command, report.agent.name)]


def left_running_hint(report: RunReport) -> str:
    """Say that processes were ended that the agent left running."""
    if not report.left_running:
        return ""
    return (
        f"The agent left {report.left_running} process(es) running; they were ended with the run."
        " A process that should outlive a dispatch has to be started outside of it."
    )


def lost_parts_hint(report: RunReport) -> str:
    """Say that parts of the output were not kept."""
    lost = []
    if cut := report.seen.cut_lines:
        lost.append(f"{cut} line(s) of output were too long and were cut.")
    if dropped := report.seen.dropped_results:
        lost.append(
            f"{dropped} earlier result(s) are only in the session: there were too many to keep."
        )
    return " ".join(lost)


def cut_short_hint(report: RunReport, results: tuple[ResultEvent, ...]) -> str:
    """Say that the run went on after its answer and was cut short."""
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


def stopped_by_hook_hint(report: RunReport, last: ResultEvent) -> str:
    """Say that a hook ended the run, or that `result` is only the agent's last text."""
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
            "A Stop hook kept the agent from finishing until Claude Code ended the run. What the"
            f" hook asked for may not be done. {where}"
        )
    if report.seen.words_recovered:
        return "Claude Code reported no final answer; `result` is what the agent said last."
    return ""
