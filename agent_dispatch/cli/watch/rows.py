"""The rows of `watch`: the fields of a job, and the order of jobs as trees."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from agent_dispatch.cli.jobs.display import agent_names, short_id
from agent_dispatch.cli.output import counted, one_line
from agent_dispatch.core.questions import shown_input, shown_text
from agent_dispatch.core.stream.events import ToolInput
from agent_dispatch.core.stream.progress_text import target_of
from agent_dispatch.model.dispatch import Evidence
from agent_dispatch.model.job import Job, JobStatus
from agent_dispatch.model.question import Question

KEPT_S = 3600.0
"""How long an ended job stays visible."""
ASKING = "asking"
"""The status shown of a running job that waits for a person."""

_TEXT_CHARS = 300


class Item(NamedTuple):
    """What is shown of a job in one row."""

    id: str
    agent: str
    status: str
    """A `JobStatus`, or `asking`."""
    doing: str
    """What the agent is doing, or how the job ended; one line."""
    task: str
    created_at: float
    completed_at: float | None
    cost_usd: float | None
    evidence: str
    parent: str | None
    members: tuple[str, ...] = ()
    """The jobs of a parallel call."""
    question_id: str = ""
    """Of the question that waits for a person."""

    @property
    def is_ended(self) -> bool:
        """Whether the job has ended."""
        return self.status != ASKING and JobStatus(self.status).is_terminal


class Row(NamedTuple):
    """A job at its place in the trees."""

    item: Item
    stem: str
    """The lines that lead to it from its parent; empty for a root."""


def item_of(job: Job) -> Item:
    """Return the fields of a job that its row shows."""
    return Item(
        id=job.id,
        agent=agent_names(job),
        status=status_of(job),
        doing=_doing(job),
        task=one_line(job.task[:_TEXT_CHARS]),
        created_at=job.created_at,
        completed_at=job.completed_at,
        cost_usd=None if job.result is None else job.result.cost_usd,
        evidence=evidence_text(None if job.result is None else job.result.evidence),
        parent=job.parent,
        members=tuple(job.members or ()),
        question_id="" if job.question is None else job.question.id,
    )


def status_of(job: Job) -> str:
    """Return the status to show."""
    return ASKING if job.question is not None else job.status.value


def _doing(job: Job) -> str:
    if (question := job.question) is not None:
        return shown_text(f"{question.tool}: {_target(question)}"[:_TEXT_CHARS])
    text = job.progress[-1] if job.progress else ""
    if job.status.is_terminal:
        text = job.error or (job.result.result if job.result is not None else "") or text
    text = one_line(text[:_TEXT_CHARS])
    # The agent has its own column.
    return text.removeprefix(f"{one_line(job.agent)} · ") or one_line(job.task[:_TEXT_CHARS])


def _target(question: Question) -> str:
    """Return the target of the call, as in a line of progress; the opened job shows all."""
    try:
        target = target_of(msgspec.convert(question.input, ToolInput))
    except msgspec.ValidationError:
        target = ""
    return target or shown_input(question.input)


def evidence_text(evidence: Evidence | None) -> str:
    """Describe in a few words what a run was seen to do."""
    if evidence is None:
        return ""
    counts = (
        (evidence.tool_calls, "call"),
        (len(evidence.files_changed or ()), "file"),
        (len(evidence.commits or ()), "commit"),
    )
    return ", ".join(counted(count, noun) for count, noun in counts if count)


def as_trees(items: Sequence[Item]) -> list[Row]:
    """Order jobs as trees: those at work first, the newest first, children below their parent."""
    known = {item.id for item in items}
    groups = {member: item.id for item in items for member in item.members}
    children: dict[str, list[Item]] = {}
    roots: list[Item] = []
    for item in sorted(items, key=lambda item: (item.created_at, item.id)):
        above = groups.get(item.id, item.parent)
        if above in known and above != item.id:
            children.setdefault(above or "", []).append(item)
        else:
            roots.append(item)

    def is_ended(item: Item) -> bool:
        return item.is_ended and all(map(is_ended, children.get(item.id, ())))

    roots.sort(key=lambda item: (not is_ended(item), item.created_at, item.id), reverse=True)
    return [row for root in roots for row in _below(root, children, "", "")]


def _below(item: Item, children: dict[str, list[Item]], stem: str, indent: str) -> Iterator[Row]:
    yield Row(item, stem)
    below = children.get(item.id, ())
    for place, child in enumerate(below, start=1):
        is_last = place == len(below)
        yield from _below(
            child,
            children,
            f"{indent}{'└ ' if is_last else '├ '}",
            f"{indent}{'  ' if is_last else '│ '}",
        )


def matching(rows: Iterable[Row], words: str) -> list[Row]:
    """Rows whose agent, task, status, text or id has all of the words; without the tree lines."""
    wanted = words.casefold().split()
    rows = list(rows)
    if not wanted:
        return rows
    return [
        Row(row.item, "") for row in rows if all(word in _searched(row.item) for word in wanted)
    ]


def _searched(item: Item) -> str:
    texts = (item.agent, item.task, item.status, item.doing, short_id(item.id))
    return " ".join(texts).casefold()
