"""Why a run failed and what to do: a type for programs, a text for readers, and next steps.

The fields of the last result decide, then how the run ended, then exit code and stderr. Text is
matched only where the CLI gives no other sign.
"""

import errno
import re
import shlex
import signal

from agent_dispatch.core.masking import mask
from agent_dispatch.core.next_step import amount, more_time, raise_budget
from agent_dispatch.core.outcome.api_failure import (
    Failure,
    api_failure_at_deadline,
    auth_failure,
    is_auth_failure,
    is_limit_failure,
    limit_failure,
    resume_run,
)
from agent_dispatch.core.outcome.denials import permission_advice
from agent_dispatch.core.outcome.report import Ending, RunReport, StartFailure, StartStage
from agent_dispatch.core.stream.events import ResultEvent
from agent_dispatch.core.stream.transcript import describe_retry
from agent_dispatch.model.config import EffectiveAgent
from agent_dispatch.model.dispatch import ErrorType
from agent_dispatch.model.next_step import DOCTOR, NextStep, run

_MAX_SHOWN_HOOKS = 5

MAX_CLI_CHARS = 2000
"""Of the CLI's message, or of stderr, in an error."""

_TOO_LONG = frozenset({"blocking_limit", "prompt_too_long"})
_INSTALL = run("npm install -g @anthropic-ai/claude-code")
_NO_DESCRIPTOR = frozenset({errno.EMFILE, errno.ENFILE})
_UNUSABLE_PROGRAM = frozenset({errno.ENOENT, errno.EACCES, errno.ENOEXEC, errno.EPERM})


_ESCAPE_SEQUENCE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
"""A control sequence of a terminal (ECMA-48, 5.4)."""


def describe_failure(report: RunReport, last: ResultEvent | None) -> Failure:
    """Return why the run failed.

    Args:
        last: Its last result, unless our own interrupt caused it.
    """
    if report.start_failure is not None:
        return _not_started(report, report.start_failure)
    if report.ending is Ending.AUTH:
        return auth_failure(report, "")
    if last is not None:
        return _by_result(report, last)
    match report.ending:
        case Ending.DEADLINE:
            return api_failure_at_deadline(report) or _timeout(report)
        case Ending.CANCELLED | Ending.INTERRUPTED:
            who = report.cancelled_by or "the caller"
            return Failure(ErrorType.CANCELLED, f"Cancelled by {who}.", (resume_run(report),))
        case Ending.GUARD_LOST:
            text = (
                "The process that supervises Claude Code was killed, so the run was ended with it."
            )
            return Failure(ErrorType.LOST, text, (resume_run(report),))
        case _:
            return _without_result(report)


def _by_result(report: RunReport, last: ResultEvent) -> Failure:
    agent, seen = report.agent, report.seen
    message = _cli_message(last)
    if last.subtype == "error_max_budget_usd" or last.terminal_reason == "budget_exhausted":
        return _over_budget(report)
    if (
        last.subtype == "error_max_structured_output_retries"
        or last.terminal_reason == "structured_output_retry_exhausted"
    ):
        text = f"The agent did not deliver the structured output that was asked for. {message}"
        return Failure(ErrorType.SCHEMA, text.rstrip(), (resume_run(report),))
    if is_auth_failure(report, last):
        return auth_failure(report, message)
    if is_limit_failure(report, last):
        return limit_failure(report, message)
    if last.num_turns == 0:
        return _no_model_asked(report, last, message)
    if last.terminal_reason in _TOO_LONG:
        text = (
            f"The prompt and the session together do not fit the model's context. {message} Put the"
            f" material into a file in {agent.directory} and name it in the task, or start a new"
            " session."
        )
        return Failure(ErrorType.CLI_ERROR, text)
    if last.api_error_status is None and seen.denied_tools and last.permission_denials:
        tools = ", ".join(dict.fromkeys(seen.denied_tools))
        why, steps = permission_advice(agent, seen, report.inherited, report.job_id)
        text = (
            f"The run failed after {len(seen.denied_tools)} tool call(s) were denied by"
            f" permissions: {tools}."
        )
        text = " ".join(filter(None, (text, message, why)))
        return Failure(ErrorType.PERMISSION, text, tuple(steps))
    if last.subtype == "error_max_turns":
        text = f"The agent reached its limit on turns before it had finished. {message}"
        return Failure(ErrorType.CLI_ERROR, text.rstrip(), (resume_run(report),))
    again = () if seen.session_id is None else (resume_run(report),)
    return Failure(ErrorType.CLI_ERROR, _reported_error(report, last, message), again)


def _over_budget(report: RunReport) -> Failure:
    agent = report.agent
    cap = agent.max_budget_usd
    if cap:
        text = (
            f"The run was stopped at its cap of ${amount(cap)} (max_budget_usd of agent"
            f" {agent.name!r}, or a tenth of the tightest ceiling in [settings] where it has none)."
        )
    else:
        text = "The run was stopped at a budget that is not configured here."
    steps = [resume_run(report), *([raise_budget(agent.name, cap)] if cap else ())]
    return Failure(ErrorType.BUDGET, f"{text} Each run has the whole cap again.", tuple(steps))


def _no_model_asked(report: RunReport, last: ResultEvent, message: str) -> Failure:
    refusal = report.seen.prompt_refused
    steps: tuple[NextStep, ...] = ()
    if refusal is not None:
        reason = f" It said: {_clip(refusal.reason)}" if refusal.reason.strip() else ""
        text = (
            "A UserPromptSubmit hook did not let the task through, so no model was asked."
            f"{reason}\n{where_hooks_are(report.agent)}"
        )
    elif report.resumed is not None and not report.seen.init_seen and last.is_error:
        text = (
            f"Session {report.resumed} could not be resumed. {message} A session is known on the"
            " machine where it ran; leave session_id out to start a new one."
        )
    else:
        text = f"Claude Code ended without asking a model. {message}{_stderr(report)}".rstrip()
        steps = (DOCTOR,)
    return Failure(ErrorType.CLI_ERROR, text, steps)


def _reported_error(report: RunReport, last: ResultEvent, message: str) -> str:
    marks = [
        f"API status {last.api_error_status}" if last.api_error_status is not None else "",
        last.api_error or last.api_error_type or "",
        last.startup_failure_reason or "",
        last.terminal_reason or last.subtype,
    ]
    status = last.api_error_status or 0
    if (last.terminal_reason or "").startswith("aborted"):
        message = "Something outside interrupted it."
    retry = "Such an error is usually temporary: try again." if status >= 500 else ""
    what = f"Claude Code reported an error ({', '.join(mark for mark in marks if mark)})."
    return " ".join(part for part in (what, message, retry) if part) + _stderr(report)


def _timeout(report: RunReport) -> Failure:
    agent, seen = report.agent, report.seen
    parts = [f"Timed out after {report.timeout_s:g} s."]
    if seen.last_retry is not None:
        parts.append(f"Meanwhile the API failed: {describe_retry(seen.last_retry)}.")
    steps = [resume_run(report)]
    if seen.running_hooks:
        hooks = ", ".join(seen.running_hooks[:_MAX_SHOWN_HOOKS])
        parts.append(
            f"Claude Code was waiting for a hook that had not ended: {hooks}."
            f" {where_hooks_are(agent)}"
        )
    elif not seen.init_seen:
        parts.append(
            "Claude Code had not started its session, and gave no reason. Often an MCP server that"
            " does not answer delays it."
        )
        steps.append(DOCTOR)
    steps.append(more_time(report.timeout_s, agent.name))
    return Failure(ErrorType.TIMEOUT, " ".join(parts), tuple(steps))


def _without_result(report: RunReport) -> Failure:
    seen = report.seen
    # Only stderr says so: our own check of the schema did not find the fault.
    _, is_reported, fault = report.stderr_tail.partition(
        "--json-schema is not a valid JSON Schema:"
    )
    if is_reported and report.json_schema:
        text = f"Claude Code does not take the json_schema: {_clip(fault)}\nCorrect it."
        return Failure(ErrorType.SCHEMA, text)
    parts = [f"Claude Code {_exit(report.exit_code)} without a result."]
    steps = [DOCTOR if seen.session_id is None else resume_run(report)]
    # The CLI says this on stderr only, before anything else.
    if "unknown option" in report.stderr_tail:
        parts.append("It does not know an option that agent-dispatch needs, so it is too old.")
        steps = [run("claude update"), DOCTOR]
    elif seen.cut_lines:
        parts.append(
            "A line of its output was longer than any may be and was cut; it may have been the"
            " answer. Ask for a shorter one, or for a file."
        )
    elif report.exit_code is not None and report.exit_code in (-signal.SIGKILL, 137):
        parts.append("Something outside killed it; often that is a machine out of memory.")
    if seen.last_retry is not None:
        parts.append(f"Before that the API failed: {describe_retry(seen.last_retry)}.")
    noise = f"\nstdout: {_clip(seen.noise_tail)}" if seen.noise_tail else ""
    text = " ".join(parts) + _stderr(report) + noise
    return Failure(ErrorType.CLI_ERROR, text, tuple(steps))


def _exit(code: int | None) -> str:
    if code is None:
        return "ended"
    number = -code if code < 0 else code - 128
    try:
        name = signal.Signals(number).name if number > 0 else ""
    except ValueError:
        name = ""
    return f"was ended by {name}" if name else f"ended with exit code {code}"


def _not_started(report: RunReport, failure: StartFailure) -> Failure:
    agent = report.agent
    system = f" ({failure.text})" if failure.text else ""
    if failure.errno in _NO_DESCRIPTOR:
        text = (
            f"No process could be started{system}: too many files are open. Raise the limit"
            " (ulimit -n 4096) where agent-dispatch is started, or lower max_concurrency in"
            " agents.toml."
        )
        return Failure(ErrorType.CLI_ERROR, text)
    match failure.stage:
        case StartStage.DIRECTORY | StartStage.CHDIR:
            text = (
                f"The directory of agent {agent.name!r} cannot be used: {agent.directory}{system}."
                " Bring it back, or remove the agent."
            )
            remove = run(f"agent-dispatch remove {shlex.quote(agent.name)}", agent.name)
            return Failure(ErrorType.NOT_FOUND, text, (remove,))
        case StartStage.CLI_MISSING:
            text = (
                f"The Claude Code CLI was not found: {report.program}{system}. If it is installed,"
                " add its folder to the PATH of the process that starts agent-dispatch. Otherwise"
                " install it. Then `claude --version` must print a version."
            )
            return Failure(ErrorType.NOT_FOUND, text, (_INSTALL, DOCTOR))
        case StartStage.FORK:
            text = (
                f"No process could be started{system}: the machine is short of memory or of"
                " processes. Try again later, or lower max_concurrency in agents.toml."
            )
            return Failure(ErrorType.CLI_ERROR, text)
        case StartStage.CLI_NOT_EXECUTABLE | StartStage.EXEC:
            text = (
                f"The Claude Code CLI could not be executed: {report.program}{system}. Make it"
                " executable, or install it again."
            )
            unusable = failure.errno is None or failure.errno in _UNUSABLE_PROGRAM
            error_type = ErrorType.NOT_FOUND if unusable else ErrorType.CLI_ERROR
            return Failure(error_type, text, (_INSTALL, DOCTOR))


def where_hooks_are(agent: EffectiveAgent) -> str:
    """Say where the hooks of an agent are configured."""
    return (
        f"Look at `hooks` in {agent.directory}/.claude/settings.json and settings.local.json, in"
        " ~/.claude/settings.json, and in the plugins."
    )


def _cli_message(last: ResultEvent) -> str:
    """Return the CLI's message as a sentence."""
    words = _clip(last.result or "; ".join(last.errors))
    return f"It said: {words}" + ("" if words.endswith((".", "!", "?")) else ".") if words else ""


def _stderr(report: RunReport) -> str:
    # Colours mean nothing to a reader of JSON.
    tail = mask(_ESCAPE_SEQUENCE.sub("", report.stderr_tail).strip())
    return f"\nstderr: {tail[-MAX_CLI_CHARS:]}" if tail else ""


def _clip(text: str) -> str:
    text = mask(text.strip()[: 4 * MAX_CLI_CHARS])
    return text if len(text) <= MAX_CLI_CHARS else text[:MAX_CLI_CHARS] + " [...]"
