"""Format jobs for people."""

from collections.abc import Mapping, Sequence

from agent_dispatch.cli.output import Colour, dollars, fit, local_time, one_line, table
from agent_dispatch.cli.shell import Shell
from agent_dispatch.core.questions import answerable, shown_input
from agent_dispatch.model.dispatch import Evidence
from agent_dispatch.model.job import Job, JobStatus, JobSummary
from agent_dispatch.model.message import Message
from agent_dispatch.model.question import PastQuestion, Question

_SHOWN_MESSAGES = 5
_HEADINGS = ("ID", "AGE", "STATUS", "AGENT", "TOOK", "COST", "TASK")
_STATUS = _HEADINGS.index("STATUS")
_VERDICTS: Mapping[bool | None, str] = {None: "", True: "passed", False: "did not pass"}
_MANY = 20
"""How many names of one kind are shown."""
_SHORT_ID_CHARS = 8
_AGES = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
_COLOURS: Mapping[JobStatus, Colour] = {
    JobStatus.PENDING: Colour.FAINT,
    JobStatus.RUNNING: Colour.NAME,
    JobStatus.DONE: Colour.GOOD,
    JobStatus.FAILED: Colour.BAD,
    JobStatus.CANCELLED: Colour.DOUBTFUL,
}


def job_table(jobs: Sequence[JobSummary], shell: Shell, now: float) -> list[str]:
    """The rows of a listing, with their headings; `now` in seconds since the epoch."""
    rows = [
        (
            short_id(job.id),
            age(now - job.created_at),
            status_text(job),
            agent_names(job),
            _took(job, now),
            "" if job.cost_usd is None else dollars(job.cost_usd),
            one_line(job.task),
        )
        for job in jobs
    ]
    colours = [{_STATUS: _COLOURS[job.status]} for job in jobs]
    return table(rows, shell, headings=_HEADINGS, colours=colours)


def agents_of(job: Job | JobSummary) -> list[str]:
    """The agents that work on a job."""
    return job.agents or [job.agent]


def agent_names(job: Job | JobSummary) -> str:
    """Their names, in one line."""
    return " + ".join(map(one_line, agents_of(job)))


def _took(job: JobSummary, now: float) -> str:
    """How long it has run, or ran; empty for a job that never ran."""
    if job.started_at is None:
        return ""
    end = job.completed_at if job.status.is_terminal else now
    return "" if end is None else age(end - job.started_at)


def end_line(job: Job) -> list[str]:
    """The last line of a job that has ended: how, after how long, and what it cost."""
    if not job.status.is_terminal:
        return []
    cost = None if job.result is None else job.result.cost_usd
    parts = [agent_names(job), job.status.value]
    if job.completed_at is not None:
        began = job.created_at if job.started_at is None else job.started_at
        parts.append(f"{max(job.completed_at - began, 0):.0f} s")
    if cost is not None:
        parts.append(dollars(cost))
    return [" · ".join(parts)]


def details(job: Job, now: float) -> list[str]:
    """The lines of `job` above the answer."""
    result = job.result
    rows = [
        ("status", status_text(job)),
        ("kind", f"{job.kind}{', kept as a ref' if job.ref else ''}"),
        ("agent", one_line(job.agent)),
        ("host", one_line(job.host or "")),
        ("unreachable", _unreachable(job, now)),
        ("task", _beginning(job.task)),
        ("context", _beginning(job.context)),
        ("caller", _beginning(job.caller)),
        ("goal", _beginning(job.goal)),
        ("model", one_line(job.model)),
        ("effort", one_line(job.effort)),
        ("started inside", job.parent or ""),
        ("created", _moment(job.created_at, now)),
        ("took", _took_in_all(job)),
        ("session", one_line(job.session_id or "")),
        ("cost", "" if result is None or result.cost_usd is None else dollars(result.cost_usd)),
        *_evidence_rows(None if result is None else result.evidence),
        ("verify", "" if result is None else _VERDICTS[result.verified]),
        *(("told", _message_text(message)) for message in (job.messages or ())[-_SHOWN_MESSAGES:]),
        *(("asks for", _question_text(question)) for question in answerable(job)),
        ("progress", one_line(job.progress[-1]) if job.progress else ""),
        ("error", one_line(job.error or "")),
    ]
    return [job.id, *(f"  {label:<16}{text}" for label, text in rows if text)]


def _took_in_all(job: Job) -> str:
    if job.completed_at is None:
        return ""
    return f"{max(job.completed_at - job.created_at, 0):.1f} s"


def _unreachable(job: Job, now: float) -> str:
    since = job.unreachable_since
    return "" if since is None else f"its host cannot be reached since {_moment(since, now)}"


def _message_text(message: Message) -> str:
    late = "" if message.delivered_at is not None else " (not delivered)"
    return f"{_beginning(message.text)}{late}"


def _question_text(question: Question | PastQuestion) -> str:
    return f"{one_line(question.tool)} {_beginning(shown_input(question.input))} ({question.id})"


def _evidence_rows(evidence: Evidence | None) -> list[tuple[str, str]]:
    """What the run was measured to do."""
    if evidence is None:
        return []
    calls = [f"{one_line(tool)} {count}" for tool, count in (evidence.tools or {}).items()]
    by_tool = f" ({_some(calls)})" if calls else ""
    read_only = ", nothing but reading" if evidence.read_only and evidence.tool_calls else ""
    return [
        ("tool calls", f"{evidence.tool_calls}{by_tool}{read_only}"),
        ("files changed", _some([one_line(path) for path in evidence.files_changed or ()])),
        ("commits", _some(evidence.commits or [])),
    ]


def _some(names: Sequence[str]) -> str:
    more = len(names) - _MANY
    return ", ".join(names[:_MANY]) + (f" and {more} more" if more > 0 else "")


def short_id(job_id: str) -> str:
    """Return the end of an id, which is random; its beginning is a time that many ids share."""
    # The id of a job on another machine needs its host.
    return job_id if "@" in job_id else job_id[-_SHORT_ID_CHARS:]


def age(seconds: float) -> str:
    """Format a duration in its largest unit; a negative one is 0."""
    for size, unit in _AGES:
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return "0 s"


def status_text(job: Job | JobSummary) -> str:
    """The status, with the kind of a failure or the end of a hold."""
    if job.held_until is not None:
        return f"held until {local_time(job.held_until, '%m-%d %H:%M')}"
    if job.status is JobStatus.FAILED and job.error_type is not None:
        return f"{job.status}: {job.error_type}"
    return job.status.value


def _beginning(text: str) -> str:
    return fit(one_line(text[:1_000]), 200)


def _moment(seconds: float, now: float) -> str:
    return f"{local_time(seconds, '%Y-%m-%d %H:%M:%S')} ({age(now - seconds)} ago)"
