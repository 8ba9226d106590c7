"""Draw `watch` as lines of styled text for a screen of a given size."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rich.text import Text

from agent_dispatch.cli.jobs.display import age, agent_names, short_id
from agent_dispatch.cli.output import dollars, printable
from agent_dispatch.cli.watch.keys import Mode, View
from agent_dispatch.cli.watch.rows import ASKING, Row, evidence_text, status_of
from agent_dispatch.core.questions import shown_input, shown_text
from agent_dispatch.model.job import Job, JobStatus

_STYLES: Mapping[str, str] = {
    JobStatus.PENDING: "bright_black",
    JobStatus.RUNNING: "bold",
    ASKING: "bold yellow",
    JobStatus.DONE: "green",
    JobStatus.FAILED: "red",
    JobStatus.CANCELLED: "yellow",
}
"""The sixteen colours that every theme defines: they can be read on light and on dark."""
_FAINT = "bright_black"
_HEAD_LINES = 2
_FOOT_LINES = 1
_MAX_AGENT_COLUMNS = 24
_SHOWN_CHARS = 20_000
"""Of an answer."""
_NARROW_COLUMNS = 72
"""Below, the columns of cost and id are left out."""
_HELP = (
    ("Enter", "open the job: its task, what the agent does, and the answer"),
    ("Esc", "go back"),
    ("up, down, j, k", "move; in an open job, scroll"),
    ("m", "send a message to the agent at work"),
    ("y, n", "allow or deny the call that an agent asks about"),
    ("c", "cancel the job, after a question"),
    ("/", "filter: words of an agent, a task or a status"),
    ("q", "quit; nothing is cancelled by it"),
)


class Scene(NamedTuple):
    """All that a screen shows."""

    rows: Sequence[Row]
    """The list; with an opened job all jobs, whatever the filter is."""
    opened: Job | None
    transcript: Sequence[str]
    """What the agent of the opened job did, as far as it was seen."""
    now: float
    """Seconds since the epoch."""
    width: int
    height: int


def draw(view: View, scene: Scene) -> list[Text]:
    """Return exactly as many lines as the screen has, none wider than it is."""
    room = max(scene.height - _HEAD_LINES - _FOOT_LINES, 1)
    if view.mode is Mode.HELP:
        lines = [_title("Keys"), Text(), *(Text(f"  {key:<16}{what}") for key, what in _HELP)]
    elif scene.opened is not None:
        lines = _job(view, scene, scene.opened, room)
    else:
        lines = _list(view, scene, room)
    lines = lines[: scene.height - _FOOT_LINES]
    lines += [Text()] * (scene.height - _FOOT_LINES - len(lines))
    lines.append(_foot(view, scene))
    for line in lines:
        line.no_wrap = True
        line.truncate(scene.width, overflow="ellipsis")
    return lines


def _title(text: str) -> Text:
    return Text(text, style="bold")


def _list(view: View, scene: Scene, room: int) -> list[Text]:
    wide = scene.width >= _NARROW_COLUMNS
    columns = _agent_columns(scene.rows)
    lines = [_summary(view, scene), Text(_headings(columns, wide=wide), style=_FAINT)]
    if not scene.rows:
        empty = "No jobs match." if view.filter else "No jobs in the last hour."
        return [*lines, Text(), Text(f"  {empty}", style=_FAINT)]
    ids = [row.item.id for row in scene.rows]
    place = ids.index(view.selected) if view.selected in ids else 0
    # The cursor stays on the screen.
    first = min(max(place - room // 2, 0), max(len(ids) - room, 0))
    for row in scene.rows[first : first + room]:
        line = _row(row, scene.now, columns, wide=wide)
        if row.item.id == view.selected:
            # In one colour: reversed, each column would get a background of its own.
            line = Text(line.plain, style="reverse")
            line.pad_right(max(scene.width - line.cell_len, 0))
        lines.append(line)
    return lines


def _agent_columns(rows: Sequence[Row]) -> int:
    names = [Text(f"{row.stem}{row.item.agent} ").cell_len for row in rows]
    return min(max(len("AGENT "), *names, 0), _MAX_AGENT_COLUMNS)


def _summary(view: View, scene: Scene) -> Text:
    statuses = [row.item.status for row in scene.rows]
    counts = [
        (statuses.count(ASKING), "asking"),
        (statuses.count(JobStatus.RUNNING), "running"),
        (statuses.count(JobStatus.PENDING), "queued"),
        (sum(row.item.is_ended for row in scene.rows), "ended in the last hour"),
    ]
    counted = " · ".join(f"{count} {what}" for count, what in counts if count)
    line = Text.assemble(("agent-dispatch", "bold"), f" · {counted}" if counted else "")
    if view.filter:
        line.append(f" · filter: {view.filter}", style="yellow")
    return line


def _headings(columns: int, *, wide: bool) -> str:
    agent = f"{'AGENT':<{columns}}"
    if wide:
        return f"{'ID':<10}{'STATUS':<11}{'AGE':<8}{'COST':<9}{agent}NOW"
    return f"{'STATUS':<11}{'AGE':<8}{agent}NOW"


def _row(row: Row, now: float, columns: int, *, wide: bool) -> Text:
    item = row.item
    line = Text()
    if wide:
        line.append(f"{short_id(item.id):<10}", style=_FAINT)
    line.append(f"{item.status:<11}", style=_STYLES.get(item.status, ""))
    line.append(f"{age((item.completed_at or now) - item.created_at):<8}")
    if wide:
        cost = "" if item.cost_usd is None else dollars(item.cost_usd)
        line.append(f"{cost:<9}")
    agent = Text.assemble((row.stem, _FAINT), (item.agent, "bold"))
    agent.truncate(columns - 1, overflow="ellipsis", pad=True)
    line.append_text(agent)
    line.append(f" {item.doing}")
    if item.evidence:
        line.append(f" ({item.evidence})", style=_FAINT)
    return line


def _job(view: View, scene: Scene, job: Job, room: int) -> list[Text]:
    ended = job.completed_at or scene.now
    facts = [status_of(job), age(ended - job.created_at)]
    if job.result is not None:
        if job.result.cost_usd is not None:
            facts.append(dollars(job.result.cost_usd))
        facts.append(evidence_text(job.result.evidence))
    head = Text.assemble(
        (agent_names(job), "bold"), f" · {' · '.join(filter(None, facts))} · {job.id}"
    )
    body = [_title("Task"), *_wrapped(job.task, scene.width), Text()]
    if members := _members(scene, job):
        body += [_title("Members"), *members, Text()]
    body.append(_title("What it does"))
    body += [line for message in scene.transcript for line in _wrapped(message, scene.width)]
    for question in job.open_questions:
        call = shown_text(f"{question.tool}: ") + shown_input(question.input)
        body += [Text(), Text("It asks: y allows this call, n denies it", style="bold yellow")]
        body += _wrapped(call, scene.width)
    if job.result is not None and job.result.result:
        body += [Text(), _title("Answer"), *_answer(job.result.result, scene.width)]
    if job.error:
        body += [Text(), Text("Error", style="bold red"), *_wrapped(job.error, scene.width)]
    up = min(view.scroll, max(len(body) - room, 0))
    end = len(body) - up
    return [head, Text(), *body[max(end - room, 0) : end]]


def _members(scene: Scene, job: Job) -> list[Text]:
    """A line for each member of a group, as in the list."""
    items = {row.item.id: row.item for row in scene.rows}
    rows = [Row(items[member], "") for member in job.members or () if member in items]
    columns, wide = _agent_columns(rows), scene.width >= _NARROW_COLUMNS
    return [_row(row, scene.now, columns, wide=wide) for row in rows]


def _answer(text: str, width: int) -> list[Text]:
    # Each redraw wraps it again.
    lines = _wrapped(text[:_SHOWN_CHARS], width)
    if (left := len(text) - _SHOWN_CHARS) > 0:
        lines.append(Text(f"… and {left:,} more characters", style=_FAINT))
    return lines


def _wrapped(text: str, width: int) -> list[Text]:
    from rich.console import Console

    console = Console(width=width, color_system=None)
    plain = printable(text)
    return [
        piece
        for line in plain.splitlines() or [""]
        for piece in Text(line.expandtabs(4)).wrap(console, max(width - 2, 1), tab_size=4)
    ]


def _foot(view: View, scene: Scene) -> Text:
    match view.mode:
        case Mode.MESSAGE:
            return Text.assemble(("Message: ", "bold"), _end_of(view.typed, scene.width - 10), "▏")
        case Mode.FILTER:
            return Text.assemble(("Filter: ", "bold"), _end_of(view.typed, scene.width - 9), "▏")
        case Mode.CONFIRM:
            return Text(f"Cancel job {short_id(view.target)}? y cancels it", style="bold yellow")
        case Mode.HELP:
            return Text("any key: back · q quit", style=_FAINT)
        case Mode.BROWSE:
            pass
    if view.notice:
        return Text(view.notice, style="bold")
    back = "Esc back" if scene.opened is not None else "Enter open · / filter"
    return Text(f"q quit · ? help · {back} · m message · y/n answer · c cancel", style=_FAINT)


def _end_of(text: str, width: int) -> str:
    """The end of a text that is being typed, where the cursor is."""
    return text[-max(width, 1) :]
