"""Why a run failed, and what to do: its type for programs, its text for readers, the next steps.

Decided by fields of the last result, by how the run was ended, and only then by exit code and
stderr. Few matches of text are left, each where the CLI gives nothing else to go by.
"""

import errno
import re
import shlex
import signal
from datetime import UTC, datetime

import msgspec

from agent_dispatch.core.masking import mask
from agent_dispatch.core.next_step import amount, more_time, raise_budget, resume
from agent_dispatch.core.outcome.denials import permission_advice
from agent_dispatch.core.outcome.report import Ending, RunReport, StartFailure, StartStage
from agent_dispatch.core.stream.events import ResultEvent
from agent_dispatch.core.stream.transcript import describe_retry
from agent_dispatch.model.config import EffectiveAgent
from agent_dispatch.model.dispatch import ErrorType
from agent_dispatch.model.next_step import DOCTOR, NextStep, run

_MAX_SHOWN_HOOKS = 5

MAX_SAID_CHARS = 2000
"""Of the CLI's own words, or of stderr, that go into an error."""

_AUTH_STATUSES = frozenset({401, 403})
_AUTH_ERRORS = frozenset(
    {"authentication_failed", "oauth_org_not_allowed", "cloud_credential_error"}
)
"""Of the CLI's reports of API errors; the only sign when it has no credentials at all."""
_AUTH_KINDS = frozenset(
    {
        "api_key_auth_disabled",
        "gateway_session_expired",
        "gateway_signin_required",
        "invalid_credential_header",
        "named_profile_unusable",
        "org_disabled_credential",
        "provider_credentials",
        "stored_login_refused",
    }
)
_REFUSED_NOT_FOR_CREDENTIALS = frozenset(
    {"dlp_request_denied", "hook_denied", "network_edge_blocked", "safety_monitor_blocked"}
)
"""Kinds that come with status 403 and that a login does not fix."""
_LIMIT_STATUSES = frozenset({402, 429})
_LIMIT_ERRORS = frozenset({"billing_error", "rate_limit"})
_LIMIT_KINDS = frozenset(
    {"long_context_credits_required", "model_requires_usage_credits", "usage_limit_reached"}
)
_TOO_LONG = frozenset({"blocking_limit", "prompt_too_long"})
_INSTALL = run("npm install -g @anthropic-ai/claude-code")
_NO_DESCRIPTOR = frozenset({errno.EMFILE, errno.ENFILE})
_UNUSABLE_PROGRAM = frozenset({errno.ENOENT, errno.EACCES, errno.ENOEXEC, errno.EPERM})


_NAMES_A_TIME = re.compile(
    r"\breset|\bagain (?:in|at|on|after)\b|\b(?:until|retry after)\b", re.IGNORECASE
)
"""In the CLI's words for a limit: they themselves say when it ends."""

_ESCAPE_SEQUENCE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
"""A control sequence of a terminal (ECMA-48, 5.4)."""


class Failure(msgspec.Struct, frozen=True):
    """What went wrong and what to do about it."""

    error_type: ErrorType
    text: str
    next_steps: tuple[NextStep, ...] = ()


def describe_failure(report: RunReport, last: ResultEvent | None) -> Failure:
    """Return what kept the run from succeeding.

    Args:
        report: The run.
        last: Its last result, unless our own interrupt made it.
    """
    if report.start_failure is not None:
        return _not_started(report, report.start_failure)
    if report.ending is Ending.AUTH:
        return _auth(report, "")
    if last is not None:
        return _by_result(report, last)
    match report.ending:
        case Ending.DEADLINE:
            return _at_deadline(report)
        case Ending.CANCELLED | Ending.INTERRUPTED:
            who = report.cancelled_by or "the caller"
            return Failure(ErrorType.CANCELLED, f"Cancelled by {who}.", (_resume(report),))
        case Ending.GUARD_LOST:
            text = (
                "The process that supervises Claude Code was killed, so the run was ended with it."
            )
            return Failure(ErrorType.LOST, text, (_resume(report),))
        case _:
            return _without_result(report)


def _by_result(report: RunReport, last: ResultEvent) -> Failure:
    agent, seen = report.agent, report.seen
    said = _said(last)
    if last.subtype == "error_max_budget_usd" or last.terminal_reason == "budget_exhausted":
        return _budget(report)
    if (
        last.subtype == "error_max_structured_output_retries"
        or last.terminal_reason == "structured_output_retry_exhausted"
    ):
        text = f"The agent did not deliver the structured output that was asked for. {said}"
        return Failure(ErrorType.SCHEMA, text.rstrip(), (_resume(report),))
    if _is_auth(report, last):
        return _auth(report, said)
    if _is_limit(report, last):
        return _usage_limit(report, said)
    if last.num_turns == 0:
        return _no_model_asked(report, last, said)
    if last.terminal_reason in _TOO_LONG:
        text = (
            f"The prompt and the session together do not fit the model's context. {said} Put the"
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
        text = " ".join(filter(None, (text, said, why)))
        return Failure(ErrorType.PERMISSION, text, tuple(steps))
    if last.subtype == "error_max_turns":
        text = f"The agent reached its limit on turns before it had finished. {said}"
        return Failure(ErrorType.CLI_ERROR, text.rstrip(), (_resume(report),))
    again = () if seen.session_id is None else (_resume(report),)
    return Failure(ErrorType.CLI_ERROR, _reported_error(report, last, said), again)


def _is_auth(report: RunReport, last: ResultEvent) -> bool:
    if not last.is_error or last.api_error in _REFUSED_NOT_FOR_CREDENTIALS:
        return False
    return (
        last.api_error_status in _AUTH_STATUSES
        or last.api_error in _AUTH_KINDS
        or report.seen.api_error in _AUTH_ERRORS
        # Older versions say it in words only, without a status and without asking a model.
        or (last.api_error_status is None and last.result.endswith("Please run /login"))
    )


def _is_limit(report: RunReport, last: ResultEvent) -> bool:
    return bool(last.is_error) and (
        last.api_error_status in _LIMIT_STATUSES
        or last.api_error in _LIMIT_KINDS
        or report.seen.api_error in _LIMIT_ERRORS
    )


def _auth(report: RunReport, said: str) -> Failure:
    retry = report.seen.last_retry
    if not said and retry is not None:
        said = f"{describe_retry(retry)}; more retries would not have helped."
    how = (
        "Log in, or set ANTHROPIC_API_KEY, or CLAUDE_CODE_OAUTH_TOKEN to what `claude setup-token`"
        " prints, where agent-dispatch is started."
    )
    text = " ".join(filter(None, ("Claude Code could not log in to the API.", said, how)))
    return Failure(ErrorType.AUTH, text, (run("claude auth login"), DOCTOR))


def _usage_limit(report: RunReport, said: str) -> Failure:
    resets = resets_at(report)
    when = "" if resets is None else f"It resets at {resets:%Y-%m-%d %H:%M} UTC."
    out_of_credit = report.seen.api_error == "billing_error"
    if not when and not out_of_credit and _NAMES_A_TIME.search(said) is None:
        when = "It is not known when that ends; a short limit ends within minutes."
    parts = ["The account or the API is at a limit.", said, when, "Then try again."]
    return Failure(ErrorType.USAGE_LIMIT, " ".join(filter(None, parts)), (_resume(report),))


def resets_at(report: RunReport) -> datetime | None:
    """Return when the limit of the account that refused the run ends, as the API said; in UTC."""
    limit = report.seen.rate_limit
    if limit is None or limit.status != "rejected" or limit.resets_at is None:
        return None
    try:
        return datetime.fromtimestamp(limit.resets_at, UTC)
    except (OverflowError, ValueError, OSError):
        return None


def _budget(report: RunReport) -> Failure:
    agent = report.agent
    cap = agent.max_budget_usd
    if cap:
        text = (
            f"The run was stopped at its cap of ${amount(cap)} (max_budget_usd of agent"
            f" {agent.name!r}, or a tenth of the tightest ceiling in [settings] where it has none)."
        )
    else:
        text = "The run was stopped at a budget that is not configured here."
    steps = [_resume(report), *([raise_budget(agent.name, cap)] if cap else ())]
    return Failure(ErrorType.BUDGET, f"{text} Each run has the whole cap again.", tuple(steps))


def _no_model_asked(report: RunReport, last: ResultEvent, said: str) -> Failure:
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
            f"Session {report.resumed} could not be resumed. {said} A session is known on the"
            " machine where it ran; leave session_id out to start a new one."
        )
    else:
        text = f"Claude Code ended without asking a model. {said}{_stderr(report)}".rstrip()
        steps = (DOCTOR,)
    return Failure(ErrorType.CLI_ERROR, text, steps)


def _reported_error(report: RunReport, last: ResultEvent, said: str) -> str:
    marks = [
        f"API status {last.api_error_status}" if last.api_error_status is not None else "",
        last.api_error or last.api_error_type or "",
        last.startup_failure_reason or "",
        last.terminal_reason or last.subtype,
    ]
    status = last.api_error_status or 0
    if (last.terminal_reason or "").startswith("aborted"):
        said = "Something outside interrupted it."
    retry = "Such an error is usually temporary: try again." if status >= 500 else ""
    what = f"Claude Code reported an error ({', '.join(mark for mark in marks if mark)})."
    return " ".join(part for part in (what, said, retry) if part) + _stderr(report)


def _at_deadline(report: RunReport) -> Failure:
    """Blame the time only where the API was not refusing when it was up."""
    retry = report.seen.last_retry
    if retry is not None and retry.error_status in _AUTH_STATUSES:
        return _auth(report, "")
    if retry is not None and (
        retry.error_status in _LIMIT_STATUSES or retry.error in _LIMIT_ERRORS
    ):
        until = f"for as long as it had ({report.timeout_s:g} s)"
        return _usage_limit(report, f"Claude Code kept trying {until}: {describe_retry(retry)}.")
    return _timeout(report)


def _timeout(report: RunReport) -> Failure:
    agent, seen = report.agent, report.seen
    parts = [f"Timed out after {report.timeout_s:g} s."]
    if seen.last_retry is not None:
        parts.append(f"Meanwhile the API failed: {describe_retry(seen.last_retry)}.")
    steps = [_resume(report)]
    if seen.running_hooks:
        hooks = ", ".join(seen.running_hooks[:_MAX_SHOWN_HOOKS])
        parts.append(
            f"Claude Code was waiting for a hook that had not ended: {hooks}."
            f" {where_hooks_are(agent)}"
        )
    elif not seen.init_seen:
        parts.append(
            "Claude Code had not even begun. It did not say why; often an MCP server that does not"
            " answer delays it."
        )
        steps.append(DOCTOR)
    steps.append(more_time(report.timeout_s, agent.name))
    return Failure(ErrorType.TIMEOUT, " ".join(parts), tuple(steps))


def _without_result(report: RunReport) -> Failure:
    seen = report.seen
    # Also on stderr only: what our own look at the schema did not find.
    _, is_told, fault = report.stderr_tail.partition("--json-schema is not a valid JSON Schema:")
    if is_told and report.json_schema:
        text = f"Claude Code does not take the json_schema: {_clip(fault)}\nCorrect it."
        return Failure(ErrorType.SCHEMA, text)
    parts = [f"Claude Code {_exit(report.exit_code)} without a result."]
    steps = [DOCTOR if seen.session_id is None else _resume(report)]
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
        # Nothing is wrong with the file that could not be opened.
        text = (
            f"No process could be started{system}: too many files are open. Raise the limit"
            " (ulimit -n 4096) for what starts agent-dispatch, or lower max_concurrency in"
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
                " put its folder on the PATH of what starts agent-dispatch, else install it;"
                " `claude --version` must print a version."
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


def _resume(report: RunReport) -> NextStep:
    return resume(report.agent, report.seen.session_id)


def where_hooks_are(agent: EffectiveAgent) -> str:
    """Say where to look for a hook that got in the way."""
    return (
        f"Look at `hooks` in {agent.directory}/.claude/settings.json, in settings.local.json beside"
        " it, in ~/.claude/settings.json, and in the plugins."
    )


def _said(last: ResultEvent) -> str:
    """Return the CLI's own words, as a sentence of their own."""
    words = _clip(last.result or "; ".join(last.errors))
    return f"It said: {words}" + ("" if words.endswith((".", "!", "?")) else ".") if words else ""


def _stderr(report: RunReport) -> str:
    # Colours mean nothing to a reader of JSON.
    tail = mask(_ESCAPE_SEQUENCE.sub("", report.stderr_tail).strip())
    return f"\nstderr: {tail[-MAX_SAID_CHARS:]}" if tail else ""


def _clip(text: str) -> str:
    text = mask(text.strip()[: 4 * MAX_SAID_CHARS])
    return text if len(text) <= MAX_SAID_CHARS else text[:MAX_SAID_CHARS] + " [...]"
