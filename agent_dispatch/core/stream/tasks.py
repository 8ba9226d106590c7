"""The background tasks of a run: which still work, and which were cut off."""

from collections.abc import Iterable

from agent_dispatch.core.stream.events import BackgroundTask, ContentBlock, SystemEvent
from agent_dispatch.core.stream.progress_text import one_line

_MAX_TASKS = 1000
_OVER = frozenset({"completed", "failed", "killed", "stopped"})
_CUT_OFF = frozenset({"killed", "stopped"})
_STOPPING_TOOLS = frozenset({"TaskStop", "KillShell", "KillBash"})


class BackgroundTasks:
    """Follows the tasks of one process. They outlive the turn that started them."""

    def __init__(self) -> None:
        self._tasks: dict[str, bool] = {}
        """Tasks that have started and not ended, and whether each runs in the background."""
        self._listed: tuple[str, ...] | None = None
        """Background tasks in the CLI's own latest list, which outranks `_tasks`."""
        self._foreground: set[str] = set()
        """Tasks that started in the foreground and stayed there."""
        self._stopped_by_agent: set[str] = set()
        self._had_any = False
        self._cut_off: set[str] = set()
        """Background tasks that neither ended by themselves nor were stopped by the agent: Claude
        Code stops them when it is told to end, or when it has waited for them long enough."""

    def begin_turn(self) -> None:
        """Forget what happened to tasks in the turns before."""
        self._had_any = False
        self._cut_off = set()

    @property
    def running(self) -> int:
        """Background tasks that still run."""
        if self._listed is not None:
            return len(self._listed)
        return sum(self._tasks.values())

    @property
    def unfinished(self) -> int:
        """Background tasks that still run or were cut off in this turn."""
        return self.running + len(self._cut_off - set(self._listed or ()))

    @property
    def had_any(self) -> bool:
        """A background task was at work in this turn."""
        return self._had_any or self.running > 0

    def add_list(self, tasks: Iterable[BackgroundTask]) -> None:
        """Take in the CLI's list of all live tasks."""
        self._listed = tuple(task.task_id for task in tasks if not (task.ambient or task.off_host))
        self._had_any |= bool(self._listed)

    def add_calls(self, blocks: Iterable[ContentBlock]) -> None:
        """Remember the tasks that the agent or a subagent stops by a tool call."""
        for block in blocks:
            if block.name in _STOPPING_TOOLS and len(self._stopped_by_agent) < _MAX_TASKS:
                self._stopped_by_agent.add(block.input.task_id or block.input.shell_id)

    def add_event(self, event: SystemEvent, task_id: str) -> str:
        """Take in the start, change or end of a task; return its line of progress, if any."""
        about = one_line(event.summary or event.description or task_id)
        if event.subtype == "task_started":
            in_background = event.is_backgrounded is not False and not event.ambient
            self._start(task_id, in_background=in_background)
            return f"Background task started: {about}" if in_background else ""
        status = event.status or (event.patch.status if event.patch else None)
        if status in _OVER:
            was_in_background = self._tasks.pop(task_id, False) or task_id in (self._listed or ())
            if was_in_background and status in _CUT_OFF and task_id not in self._stopped_by_agent:
                self._cut_off.add(task_id)
        elif task_id in self._tasks and event.patch and event.patch.is_backgrounded is not None:
            self._tasks[task_id] = event.patch.is_backgrounded
            if event.patch.is_backgrounded:
                self._foreground.discard(task_id)
        if event.subtype == "task_notification" and task_id not in self._foreground:
            return f"Background task {one_line(status or 'ended')}: {about}"
        return ""

    def _start(self, task_id: str, *, in_background: bool) -> None:
        if len(self._tasks) < _MAX_TASKS:
            self._tasks[task_id] = in_background
        if not in_background and len(self._foreground) < _MAX_TASKS:
            self._foreground.add(task_id)
        self._had_any |= in_background

    def end_turn(self) -> None:
        """Drop foreground tasks: they cannot outlive their turn, even if no event ended them."""
        self._tasks = {task: True for task, in_background in self._tasks.items() if in_background}
