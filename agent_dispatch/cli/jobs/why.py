"""`why`: what decided how a job went, one line for each fact."""

from collections.abc import Iterator

import msgspec

from agent_dispatch.cli.jobs.display import short_id, status_text
from agent_dispatch.cli.jobs.lookup import NEWEST, read_job
from agent_dispatch.cli.output import dollars, fit, one_line, write_json, write_lines
from agent_dispatch.cli.shell import Shell, open_registry
from agent_dispatch.config.snapshot import ConfigSnapshot
from agent_dispatch.core.money.ceilings import cap_usd
from agent_dispatch.errors import DispatchError
from agent_dispatch.model.dispatch import ErrorType
from agent_dispatch.model.job import Job, JobStatus

MAX_LINES = 10
_VALUE_COLUMNS = 120
_NOTABLE_WAIT_S = 1.0


class Reason(msgspec.Struct, frozen=True):
    """One fact that decided what happened."""

    what: str
    value: str
    where: str
    """Its source."""

    def line(self) -> str:
        """Word it for people."""
        return f"{self.what}: {fit(one_line(self.value), _VALUE_COLUMNS)} ({one_line(self.where)})"


def why(job_id: str = NEWEST, /, *, json: bool = False, shell: Shell) -> int:
    """Explain what decided how a job went: config, rights, slot, limits, who ended it.

    Args:
        job_id: The beginning or the end of its id, at least 4 digits; by default the newest job.
        json: Print an array of objects with what, value and where.
    """
    job = read_job(shell, job_id)
    reasons = list(reasons_for(job, shell))[:MAX_LINES]
    if json:
        write_json(shell, reasons)
    else:
        write_lines(shell, [reason.line() for reason in reasons])
    return 0


def reasons_for(job: Job, shell: Shell) -> Iterator[Reason]:
    """Yield the reasons, the most important first."""
    record = f"the record of job {short_id(job.id)}"
    yield Reason("outcome", _outcome(job), record)
    if job.error:
        yield Reason("error", job.error.partition("\n")[0], record)
    yield from _denials(job, record)
    yield from _waits(job, record)
    yield from _limits(job, shell)
    yield from _asked_for(job, record)
    if job.parent is not None:
        yield Reason("started inside", f"job {short_id(job.parent)}, and ends with it", record)


def _outcome(job: Job) -> str:
    cached = job.result is not None and job.result.cached
    return f"{status_text(job)}, answered from the cache" if cached else status_text(job)


def _denials(job: Job, record: str) -> Iterator[Reason]:
    result = job.result
    if result is None:
        return
    if result.denied_tools:
        # The hint names the rule, hook or mode that denied the call.
        cause = (result.hint or "").partition("\n")[0] or ", ".join(result.denied_tools)
        yield Reason("denied", cause, "the permissions of its Claude Code session")
    if result.verified is not None:
        verdict = "passed" if result.verified else "did not pass"
        yield Reason("verify", f"the agent's command {verdict}", record)
    for question in job.questions or ():
        by = "nobody" if question.answered_by is None else str(question.answered_by)
        yield Reason("question", f"{question.tool}: {question.answer}", f"answered by {by}")


def _waits(job: Job, record: str) -> Iterator[Reason]:
    if job.held_until is not None or job.error_type is ErrorType.USAGE_LIMIT:
        yield Reason("usage limit", "a limit of the account was reached", "Claude Code")
    if job.started_at is None:
        if job.status is JobStatus.PENDING:
            yield Reason("slot", "it waits for one", "max_concurrency of [settings]")
    elif (waited_s := job.started_at - job.created_at) >= _NOTABLE_WAIT_S:
        yield Reason("slot", f"waited {waited_s:.0f} s for one", "max_concurrency of [settings]")


def _limits(job: Job, shell: Shell) -> Iterator[Reason]:
    """Yield the limits that ended it, and where they are set now."""
    try:
        snapshot = open_registry(shell).snapshot()
        agent = snapshot.effective(job.agent)
    except DispatchError as error:
        yield Reason("config", f"its agent cannot run now: {error}", _config_source(shell))
        return
    if job.error_type is ErrorType.TIMEOUT:
        if job.timeout_seconds is not None:
            yield Reason("timeout", f"{job.timeout_seconds:g} s", "timeout_seconds of the call")
        else:
            where = _place(snapshot, job.agent, "timeout")
            yield Reason("timeout", f"{agent.timeout_s:g} s", where)
    yield from _money(job, snapshot)
    if job.error_type is ErrorType.RECURSION:
        depth = str(snapshot.settings.max_dispatch_depth)
        yield Reason("depth", f"at most {depth}", "max_dispatch_depth of [settings]")
    if job.result is not None and job.result.denied_tools:
        if agent.permission_mode:
            where = _place(snapshot, job.agent, "permission_mode")
            yield Reason("permission mode", agent.permission_mode, where)
        if agent.allowed_tools is not None:
            where = _place(snapshot, job.agent, "allowed_tools")
            yield Reason("allowed tools", ", ".join(agent.allowed_tools) or "none", where)
    yield Reason("config", str(snapshot.path), _config_source(shell))


def _money(job: Job, snapshot: ConfigSnapshot) -> Iterator[Reason]:
    """Yield the limits on its cost, if one of them ended it or prevented its start."""
    over_cap = job.result is not None and job.result.budget_exceeded
    if job.error_type is not ErrorType.BUDGET and not over_cap:
        return
    settings = snapshot.settings
    if job.started_at is None:
        # Its cap exceeded one of these; the error says which.
        for name in ("max_cost_per_day_usd", "max_cost_per_tree_usd"):
            if (ceiling := getattr(settings, name)) is not None:
                yield Reason("ceiling", dollars(ceiling), f"{name} of [settings]")
        if settings.max_runs_per_tree is not None:
            most = f"{settings.max_runs_per_tree} runs"
            yield Reason("ceiling", most, "max_runs_per_tree of [settings]")
    own_usd = snapshot.effective(job.agent).max_budget_usd
    cap = cap_usd(own_usd, settings)
    if cap is not None:
        where = _place(snapshot, job.agent, "max_budget_usd")
        shared = "a tenth of the tightest ceiling"
        yield Reason("budget", f"{dollars(cap)} a run", where if own_usd else shared)


def _place(snapshot: ConfigSnapshot, agent: str, key: str) -> str:
    own = snapshot.config.agents.get(agent)
    if own is not None and getattr(own, key) is not None:
        return f"{key} of [agents.{agent}]"
    if getattr(snapshot.settings, f"default_{key}", None) is not None:
        return f"default_{key} of [settings]"
    return "the default"


def _config_source(shell: Shell) -> str:
    if shell.environ.get("AGENT_DISPATCH_CONFIG"):
        return "AGENT_DISPATCH_CONFIG"
    return "XDG_CONFIG_HOME" if shell.environ.get("XDG_CONFIG_HOME") else "the default place"


def _asked_for(job: Job, record: str) -> Iterator[Reason]:
    if job.resume_session_id is not None:
        yield Reason("session", f"resumed {job.resume_session_id}", "the call")
    for what, value in (("model", job.model), ("effort", job.effort), ("group", job.group)):
        if value:
            yield Reason(what, value, "the call")
    if job.client_gave_up:
        value = "passed before the answer was there; the job went on"
        yield Reason("client timeout", value, "the client's own limit for a call")
    elif job.ref:
        yield Reason("kept", "until gc, as its caller was given its id", record)
