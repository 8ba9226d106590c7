"""Failures of the login and of the account's limits."""

import re
from datetime import UTC, datetime

import msgspec

from agent_dispatch.core.next_step import resume
from agent_dispatch.core.outcome.report import RunReport
from agent_dispatch.core.stream.events import ResultEvent
from agent_dispatch.core.stream.transcript import describe_retry
from agent_dispatch.model.dispatch import ErrorType
from agent_dispatch.model.next_step import DOCTOR, NextStep, run

_AUTH_STATUSES = frozenset({401, 403})
_AUTH_ERRORS = frozenset(
    {"authentication_failed", "oauth_org_not_allowed", "cloud_credential_error"}
)
"""Kinds of API errors that the CLI reports; the only sign if it has no credentials at all."""
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
"""Kinds with status 403 that a login does not fix."""
_LIMIT_STATUSES = frozenset({402, 429})
_LIMIT_ERRORS = frozenset({"billing_error", "rate_limit"})
_LIMIT_KINDS = frozenset(
    {"long_context_credits_required", "model_requires_usage_credits", "usage_limit_reached"}
)
_NAMES_A_TIME = re.compile(
    r"\breset|\bagain (?:in|at|on|after)\b|\b(?:until|retry after)\b", re.IGNORECASE
)
"""Finds, in the CLI's message about a limit, that it says when the limit ends."""


class Failure(msgspec.Struct, frozen=True):
    """What went wrong, and what to do about it."""

    error_type: ErrorType
    text: str
    next_steps: tuple[NextStep, ...] = ()


def is_auth_failure(report: RunReport, last: ResultEvent) -> bool:
    """Tell whether the run failed because its login was refused."""
    if not last.is_error or last.api_error in _REFUSED_NOT_FOR_CREDENTIALS:
        return False
    return (
        last.api_error_status in _AUTH_STATUSES
        or last.api_error in _AUTH_KINDS
        or report.seen.api_error in _AUTH_ERRORS
        # Older versions only say so in words, without a status.
        or (last.api_error_status is None and last.result.endswith("Please run /login"))
    )


def is_limit_failure(report: RunReport, last: ResultEvent) -> bool:
    """Tell whether the run failed because of a limit of the account or the API."""
    return bool(last.is_error) and (
        last.api_error_status in _LIMIT_STATUSES
        or last.api_error in _LIMIT_KINDS
        or report.seen.api_error in _LIMIT_ERRORS
    )


def auth_failure(report: RunReport, message: str) -> Failure:
    """Return the failure of a login; `message` is the CLI's message."""
    retry = report.seen.last_retry
    if not message and retry is not None:
        message = f"{describe_retry(retry)}; more retries would not have helped."
    how = (
        "Log in, or set ANTHROPIC_API_KEY, or CLAUDE_CODE_OAUTH_TOKEN to what `claude setup-token`"
        " prints, where agent-dispatch is started."
    )
    text = " ".join(filter(None, ("Claude Code could not log in to the API.", message, how)))
    return Failure(ErrorType.AUTH, text, (run("claude auth login"), DOCTOR))


def limit_failure(report: RunReport, message: str) -> Failure:
    """Return the failure at a limit; `message` is the CLI's message."""
    resets = resets_at(report)
    when = "" if resets is None else f"It resets at {resets:%Y-%m-%d %H:%M} UTC."
    out_of_credit = report.seen.api_error == "billing_error"
    if not when and not out_of_credit and _NAMES_A_TIME.search(message) is None:
        when = "It is not known when that ends; a short limit ends within minutes."
    parts = ["The account or the API is at a limit.", message, when, "Then try again."]
    return Failure(ErrorType.USAGE_LIMIT, " ".join(filter(None, parts)), (resume_run(report),))


def resets_at(report: RunReport) -> datetime | None:
    """Return when the limit that refused the run ends, in UTC; None if the API did not say."""
    limit = report.seen.rate_limit
    if limit is None or limit.status != "rejected" or limit.resets_at is None:
        return None
    try:
        return datetime.fromtimestamp(limit.resets_at, UTC)
    except (OverflowError, ValueError, OSError):
        return None


def resume_run(report: RunReport) -> NextStep:
    """Return how to resume the session of a run."""
    return resume(report.agent, report.seen.session_id)


def api_failure_at_deadline(report: RunReport) -> Failure | None:
    """Return the failure of a run whose API calls were being refused at its deadline."""
    retry = report.seen.last_retry
    if retry is None:
        return None
    if retry.error_status in _AUTH_STATUSES:
        return auth_failure(report, "")
    if retry.error_status in _LIMIT_STATUSES or retry.error in _LIMIT_ERRORS:
        until = f"for as long as it had ({report.timeout_s:g} s)"
        return limit_failure(report, f"Claude Code kept trying {until}: {describe_retry(retry)}.")
    return None
