"""`watch`: a live view of all jobs. It reads the records on disk and owns no job."""

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from agent_dispatch.cli.jobs.display import short_id
from agent_dispatch.cli.jobs.lookup import find_job
from agent_dispatch.cli.output import OutputError, is_plain_terminal, one_line, write_lines
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
    import trio

    store = open_store(shell)
    opened = find_job(store, job_id) if job_id else ""
    watcher = Watcher(store)
    if shell.stdin.isatty() and is_plain_terminal(shell.stdout, shell.environ):
        from agent_dispatch.cli.watch.terminal import watch_terminal

        opening = shell.open_service(environ=shell.environ, fork_server=None)

        async def show() -> int | DispatchError:
            try:
                async with opening as service:
                    return await watch_terminal(shell, watcher, service, opened)
            except DispatchError as error:
                return error

        return status_of(trio.run(show))
    from agent_dispatch.cli.signals import until_signal

    async def follow() -> int | Exception:
        return await follow_changes(shell, watcher, opened)

    return status_of(trio.run(until_signal, follow, lambda: None))


def status_of(ended: int | Exception) -> int:
    """Return the exit status, or raise an error that was returned as a value."""
    if isinstance(ended, Exception):
        raise ended
    return 128 + ended if isinstance(ended, signal.Signals) else ended


def _always() -> bool:
    return True


async def follow_changes(
    shell: Shell, watcher: Watcher, only: str = "", may_end: Callable[[], bool] = _always
) -> int | Exception:
    """Print a line for each change, until no job runs.

    Args:
        watcher: Looks at the jobs.
        only: Print this job's changes alone; empty for all.
        may_end: Whether no more jobs will start.

    Returns:
        The exit status, or the error: nurseries would wrap a raised one in a group.
    """
    try:
        await _follow(shell, watcher, only, may_end)
    except (DispatchError, OutputError, OSError) as error:
        return error
    return 0


async def _follow(shell: Shell, watcher: Watcher, only: str, may_end: Callable[[], bool]) -> None:
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
