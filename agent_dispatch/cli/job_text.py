"""How jobs are shown to people."""

import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from typing import TextIO

from agent_dispatch.cli.output import Colour, cell_width, fit, one_line, pad, paint
from agent_dispatch.cli.shell import Shell
from agent_dispatch.core.questions import shown_input, waiting
from agent_dispatch.model.dispatch import Evidence
from agent_dispatch.model.job import Job, JobStatus, JobSummary
from agent_dispatch.model.question import PastQuestion, Question

_HEADINGS = ("ID", "AGE", "STATUS", "AGENT", "COST")
_STATUS = _HEADINGS.index("STATUS")
_GAP = "  "
_FEWEST_TASK_COLUMNS = 20
_UNBOUNDED_COLUMNS = 1_000
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


def table(jobs: Sequence[JobSummary], shell: Shell, now: float) -> list[str]:
    """The rows of a listing, aligned, with their headings; `now` in seconds since the epoch."""
    cells = [
        _HEADINGS,
        *(
            (
                short_id(job.id),
                age(now - job.created_at),
                _status(job),
                one_line(job.agent),
                "" if job.cost_usd is None else f"${job.cost_usd:.4f}",
            )
            for job in jobs
        ),
    ]
    widths = [max(map(cell_width, column)) for column in zip(*cells, strict=True)]
    headings, *rows = ([pad(*cell) for cell in zip(row, widths, strict=True)] for row in cells)
    room = columns(shell.stdout) - sum(widths) - len(_GAP) * len(widths)
    lines = [paint(_GAP.join((*headings, "TASK")), Colour.FAINT, shell.stdout, shell.environ)]
    for job, row in zip(jobs, rows, strict=True):
        row[_STATUS] = paint(row[_STATUS], _COLOURS[job.status], shell.stdout, shell.environ)
        lines.append(_GAP.join((*row, fit(one_line(job.task), max(room, _FEWEST_TASK_COLUMNS)))))
    return lines


def details(job: Job, now: float) -> list[str]:
    """What is known of one job but its answer."""
    result = job.result
    rows = [
        ("status", _status(job)),
        ("kind", f"{job.kind}{', kept as a ref' if job.ref else ''}"),
        ("agent", one_line(job.agent)),
        ("task", _beginning(job.task)),
        ("context", _beginning(job.context)),
        ("caller", _beginning(job.caller)),
        ("goal", _beginning(job.goal)),
        ("started inside", job.parent or ""),
        ("created", _moment(job.created_at, now)),
        ("took", "" if job.completed_at is None else _seconds(job.completed_at - job.created_at)),
        ("session", one_line(job.session_id or "")),
        ("cost", "" if result is None or result.cost_usd is None else f"${result.cost_usd:.4f}"),
        *_evidence_rows(None if result is None else result.evidence),
        *(("asks for", _asked(question)) for question in waiting(job)),
        ("progress", one_line(job.progress[-1]) if job.progress else ""),
        ("error", one_line(job.error or "")),
    ]
    return [job.id, *(f"  {label:<16}{text}" for label, text in rows if text)]


def _asked(question: Question | PastQuestion) -> str:
    return f"{one_line(question.tool)} {_beginning(shown_input(question.input))} ({question.id})"


def _evidence_rows(evidence: Evidence | None) -> list[tuple[str, str]]:
    """What the run did, as it was measured."""
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
    """Return the end of an id, which is random: its beginning is a time that many share."""
    return job_id[-_SHORT_ID_CHARS:]


def age(seconds: float) -> str:
    """A time that went by, in its largest unit; nothing is younger than now."""
    for size, unit in _AGES:
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return "0 s"


def _status(job: Job | JobSummary) -> str:
    if job.status is JobStatus.FAILED and job.error_type is not None:
        return f"{job.status}: {job.error_type}"
    return job.status.value


def _beginning(text: str) -> str:
    return fit(one_line(text[:1_000]), 200)


def _moment(seconds: float, now: float) -> str:
    try:
        local = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
    except (OverflowError, ValueError, OSError):
        return f"{seconds} (no time that a calendar has)"
    return f"{local} ({age(now - seconds)} ago)"


def _seconds(seconds: float) -> str:
    return f"{max(seconds, 0):.1f} s"


def columns(stream: TextIO) -> int:
    """The width of a terminal; what is none has room for everything."""
    if stream.isatty():
        # A terminal may not tell.
        with contextlib.suppress(OSError):
            return os.get_terminal_size(stream.fileno()).columns or _UNBOUNDED_COLUMNS
    return _UNBOUNDED_COLUMNS
