"""The third surface: a process that runs background jobs, and outlives their submitter.

It is forked from a spawner that has imported this module, or started as
`python -P -m agent_dispatch.worker FDS…`. It has a session of its own, nobody as its parent, the
null device as its streams, and works with the environment of its submitter; it holds a job's lock
for as long as it works on it, and its guard does so for as long as a process of the run is left.
What it says on stderr goes to the job's log.

A forked worker that has run a job to its end is as good as a new one, so it takes the next job of
its submitter, one at a time. It ends with the job when the submitter is gone by then.
"""

import gc
import json
import os
import resource
import signal
import sys
import traceback
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import redirect_stderr
from functools import partial
from pathlib import Path

import trio

from agent_dispatch.dispatch.background import wait_for_go
from agent_dispatch.dispatch.service import open_service
from agent_dispatch.errors import DispatchError
from agent_dispatch.jobs.file_store import FileJobStore
from agent_dispatch.jobs.log import JobLog
from agent_dispatch.late import import_late_modules
from agent_dispatch.process.guard import set_process_name
from agent_dispatch.process.open_files import set_soft_limit
from agent_dispatch.process.spawner import OnlyProcess, Spawner, lend_one, start_one, start_spawner
from agent_dispatch.project.config_file import config_path, jobs_path
from agent_dispatch.project.registry import Registry

_LEAVE_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # getrusage(2)
_MAX_GROWTH_BYTES = 32 * 1024 * 1024
"""A worker that has grown by more leaves: memory once used for a large answer stays with it."""
_GUARD_IDLE_S = 5.0
"""How long the guard may take to get ready behind a tree that is empty, on a loaded machine."""


def start_worker_spawner(guards: Spawner | None = None) -> Spawner:
    """Fork a spawner of workers; call it before any thread and before `trio.run`.

    Args:
        guards: Lends each worker its guard, which is smaller than what a worker can fork.
    """
    return start_spawner(partial(prepare, guards), lender=guards)


def prepare(guards: Spawner | None) -> Callable[[Mapping[str, object], Sequence[int]], None]:
    """Be a worker that waits for its first job; for `process.spawner`."""
    # Once more: nobody's child, so no walk down from the submitter finds it.
    if os.fork():
        os._exit(0)
    os.setsid()
    set_process_name("dispatch-work")
    os.chdir("/")
    import_late_modules()
    return Worker(guards).run


class Worker:
    """This process, as the worker of one job after the other."""

    def __init__(self, guards: Spawner | None = None) -> None:
        """Get the guard from `guards`, or fork it."""
        self._guards = guards
        self._guard: OnlyProcess | None = None
        self._registry: Registry | None = None
        self._may_go_on = True
        # What it begins with is shared with whoever it was forked from.
        self._peak_at_first = _peak_bytes()

    def run(self, request: Mapping[str, object], fds: Sequence[int]) -> None:
        """Run one job to its end; return if this process may run another one.

        Args:
            request: `job_id`, `env`, and `claude`, the program that plays it, or None.
            fds: Where to say that we are up and to be told to go, and the job's own.
        """
        status = 1
        job_id, environ = str(request["job_id"]), request["env"]
        assert isinstance(environ, dict)

        def open_log() -> int:
            return FileJobStore(jobs_path(environ, config_path(environ))).open_log(job_id)

        with JobLog(open_log) as log, redirect_stderr(log):
            try:
                self._run(job_id, environ, request["claude"], fds)
                if self._is_as_good_as_new():
                    return
                status = 0
            except Exception:
                # The log is all that is left of it.
                traceback.print_exc()
        os._exit(status)

    def _run(
        self, job_id: str, environ: Mapping[str, str], claude: object, fds: Sequence[int]
    ) -> None:
        up, *job_fds = fds
        assert claude is None or isinstance(claude, list)
        if not wait_for_go(up):
            # Never told to anybody, or told to be cancelled or to have failed: it must not run.
            sys.stderr.write(f"job {job_id}: whoever submitted it is gone; not run\n")
            self._may_go_on = False
            return
        if self._guard is None:
            self._guard = self._get_guard()
            gc.enable()
        trio.run(self._work, job_id, job_fds, environ, claude, self._guard)

    def _get_guard(self) -> OnlyProcess:
        if self._guards is not None and (lent := lend_one(self._guards)).sock is not None:
            return lent
        return start_one()

    def _is_as_good_as_new(self) -> bool:
        return (
            self._may_go_on
            and _peak_bytes() - self._peak_at_first < _MAX_GROWTH_BYTES
            and self._guard is not None
            and self._guard.wait_idle(_GUARD_IDLE_S)
        )

    async def _work(
        self,
        job_id: str,
        job_fds: Sequence[int],
        environ: Mapping[str, str],
        claude: Sequence[str] | None,
        spawner: Spawner,
    ) -> None:
        with trio.open_signal_receiver(*_LEAVE_SIGNALS) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._end_at_signal, signals, nursery.cancel_scope)
                try:
                    registry = self._registry_of(config_path(environ))
                    async with open_service(
                        environ=environ, spawner=spawner, claude=claude, registry=registry
                    ) as service:
                        await service.run_handed_over(job_id, job_fds)
                except DispatchError as error:
                    # The record says it too, if there is one that could be written.
                    sys.stderr.write(f"job {job_id}: {error}\n")
                nursery.cancel_scope.cancel()

    def _registry_of(self, path: Path) -> Registry:
        # Kept: it reads a file only once as long as that does not change.
        if self._registry is None or self._registry.path != path:
            self._registry = Registry(path)
        return self._registry

    async def _end_at_signal(self, signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
        async for _ in signals:
            self._may_go_on = False
            scope.cancel()


def _peak_bytes() -> int:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT


def main(argv: Sequence[str]) -> None:
    """The slow way in: descriptors by number, the request as JSON on stdin."""
    request = json.load(sys.stdin)
    if (soft := request.get("open_files")) is not None:
        set_soft_limit(soft)
    if os.fork():
        os._exit(0)
    null = os.open(os.devnull, os.O_RDWR)
    for target in (0, 1, 2):
        os.dup2(null, target)
    fds = [int(word) for word in argv]
    for fd in fds:
        os.set_inheritable(fd, False)
    set_process_name("dispatch-work")
    os.chdir("/")
    Worker().run(request, fds)
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
