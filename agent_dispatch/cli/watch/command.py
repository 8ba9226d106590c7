"""`watch`: a live view of all jobs. It reads the records on disk and owns no job."""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

from agent_dispatch.cli.event_loop import run_trio, status_after, until_signal
from agent_dispatch.cli.jobs.display import short_id
from agent_dispatch.cli.jobs.lookup import find_job
from agent_dispatch.cli.output import is_plain_terminal, one_line, write_lines
from agent_dispatch.cli.shell import Shell, open_store
from agent_dispatch.cli.watch.rows import KEPT_S, Item, as_trees, item_of
from agent_dispatch.errors import DispatchError
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.model.job import MAX_LISTED, Job, JobStatus

LOOK_EVERY_S = 1.0
"""How often the records are read; progress is written once a second at most."""
_NEWEST = 200
"""How many ended jobs are read at most; running and pending ones are all read."""


class Seen(NamedTuple):
    """The jobs that one look at the records found."""

    items: Sequence[Item]
    opened: Job | None


class Watcher:
    """Reads the records of jobs; an ended job is read once. Call it in a thread."""

    def __init__(self, store: JobStore) -> None:
        """Look at the jobs of `store`."""
        self._store = store
        self._ended: dict[str, Item] = {}

    def look(self, opened: str = "") -> Seen:
        """Read the jobs that run, wait or ended in the last hour, and the whole of `opened`."""
        since = time.time() - KEPT_S
        items: dict[str, Item] = {}
        for job_id in dict.fromkeys(self._candidates(since)):
            known = self._ended.get(job_id)
            if known is None:
                job = self._read(job_id)
                if job is None:
                    continue
                known = item_of(job)
                if known.is_ended:
                    self._ended[job_id] = known
            if not known.is_ended or (known.completed_at or known.created_at) > since:
                items[job_id] = known
        self._ended = {job_id: item for job_id, item in self._ended.items() if job_id in items}
        return Seen(list(items.values()), self._read(opened) if opened else None)

    def _candidates(self, since: float) -> Iterator[str]:
        for status in (JobStatus.RUNNING, JobStatus.PENDING):
            for job in self._store.lister.newest(status=status, limit=MAX_LISTED).jobs:
                yield job.id
        for job in self._store.lister.newest(limit=_NEWEST).jobs:
            if (job.completed_at or job.created_at) > since:
                yield job.id

    def _read(self, job_id: str) -> Job | None:
        try:
            return self._store.settle(job_id)
        except DispatchError:
            return None  # Removed since it was listed, or unreadable: `jobs` warns about it.


def watch(job_id: str = "", /, *, shell: Shell) -> int:
    """Watch all jobs live, and act on them with a key. Without a terminal, print each change.

    Press ? for the keys. Without a terminal it ends when no job runs.

    Args:
        job_id: Open this job: the beginning or the end of its id, at least 4 digits, or `last`.
    """
    store = open_store(shell)
    opened = find_job(store, job_id) if job_id else ""
    watcher = Watcher(store)
    if shell.stdin.isatty() and is_plain_terminal(shell.stdout, shell.environ):
        from agent_dispatch.cli.watch.terminal import watch_terminal

        async def show() -> int:
            async with shell.open_service(environ=shell.environ, fork_server=None) as service:
                return await watch_terminal(shell, watcher, service, opened)

        return run_trio(show)
    return status_after(run_trio(until_signal, partial(follow_changes, shell, watcher, opened)))


async def follow_changes(
    shell: Shell, watcher: Watcher, only: str = "", may_end: Callable[[], bool] = lambda: True
) -> None:
    """Print a line for each change, until no job runs.

    Args:
        watcher: Looks at the jobs.
        only: Print this job's changes alone; empty for all.
        may_end: Whether no more jobs will start.
    """
    import trio

    from agent_dispatch.threads import in_thread

    shown: dict[str, tuple[str, str]] = {}
    is_first = True
    while True:
        is_last = may_end()
        items = [item for item in (await in_thread(watcher.look)).items if only in ("", item.id)]
        for item in (row.item for row in as_trees(items)):
            state = (item.status, item.doing)
            # At the first look, a job that has ended is not a change.
            if shown.get(item.id) != state and not (is_first and item.is_ended):
                write_lines(shell, [_line(item)], at_once=True)
            shown[item.id] = state
        if is_last and all(item.is_ended for item in items):
            return
        is_first = False
        await trio.sleep(LOOK_EVERY_S)


def _line(item: Item) -> str:
    clock = time.strftime("%H:%M:%S")
    return one_line(f"{clock} {short_id(item.id)} {item.agent} · {item.status} · {item.doing}")
