"""Hand a background job to a worker process, which outlives its submitter.

Ownership moves at one moment: when the submitter sends `GO`. Before that, the worker has the job's
descriptors and does nothing with them. After that, the submitter does nothing with the job. A
worker that reads EOF instead of `GO` runs nothing.

A job that another machine submitted may have a lease: the worker ends it when its caller has been
silent for too long.
"""

import contextlib
import os
import socket
import sys
from collections.abc import Mapping, Sequence

import trio

from agent_dispatch.claude.fork_server import GO, UP, WORKER, ForkServer
from agent_dispatch.claude.launcher import Launcher
from agent_dispatch.core.outcome.refusal import refused_by
from agent_dispatch.errors import DispatchError
from agent_dispatch.jobs.owner import Ownership, create_job
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.model.dispatch import DispatchRequest
from agent_dispatch.model.job import JOB_VARIABLE, Job, JobKind
from agent_dispatch.run.accounts import tree_around
from agent_dispatch.run.run_job import cancelled_before_start
from agent_dispatch.threads import in_thread

WORKER_PROGRAM = (sys.executable, "-P", "-m", "agent_dispatch.worker")
"""The slow way to a worker. -P: a file of the current directory must not replace a module."""
_LOOK_AT_LEASE_EVERY_S = 1.0

_WHAT_NEXT = (
    "Nothing of the job runs. Raise the limits (ulimit -u, ulimit -n), or let fewer jobs run at"
    " once."
)


class WorkerStartError(DispatchError):
    """No worker could be started; nothing of the job runs."""


class Workers:
    """Records the background jobs of one submitter, and starts their workers."""

    def __init__(
        self,
        store: JobStore,
        fork_server: ForkServer | None,
        environ: Mapping[str, str],
        claude: Sequence[str] | None,
    ) -> None:
        """Start workers with the environment of the submitter.

        Args:
            fork_server: Forks the workers; None starts each as a new program.
            environ: The environment of the workers and of their agents.
            claude: The program to run as claude, as in `open_service`.
        """
        self._store = store
        self._launcher = Launcher(fork_server, WORKER, WORKER_PROGRAM)
        self._environ = dict(environ)
        self._claude = None if claude is None else list(claude)

    async def submit(
        self,
        request: DispatchRequest,
        kind: JobKind = JobKind.BACKGROUND,
        *,
        ref: bool = False,
        job_id: str | None = None,
        lease_s: float | None = None,
        tree: str | None = None,
        fields: Mapping[str, object] | None = None,
    ) -> Job:
        """Record a job and hand it to a worker of its own.

        If cancelled, either no worker has the job, and its record says that it was cancelled; or a
        worker has it, and this call returns normally.

        Args:
            request: What is recorded of the request.
            ref: Its record is kept until `gc`.
            job_id: Its id, which no job may have yet; None makes a new one.
            lease_s: For a job of a remote caller: how long it goes on without this caller; 0: to
                its end.
            tree: The tree of runs that it belongs to, if not the one around this process.
            fields: Other fields of its record.

        Raises:
            JobStoreError: It cannot be recorded; nothing was started.
            WorkerStartError: No worker took it; it is recorded as failed.
        """
        job = self._store.new_job(
            request,
            kind=kind,
            parent=self._environ.get(JOB_VARIABLE),
            tree=tree or tree_around(self._environ),
            ref=ref,
            job_id=job_id,
            fields=fields,
        )
        async with create_job(self._store, job) as owned:
            result = None
            try:
                if lease_s is not None:
                    await in_thread(self._store.submissions.prepare, owned.job.id, lease_s)
                await self.start(owned)
            except DispatchError as error:
                result = refused_by(error, request.agent)
                raise
            except trio.Cancelled:
                result = cancelled_before_start(owned, "its submitter")
                raise
            finally:
                if result is not None:
                    # It is shielded and bounded itself.
                    await owned.finish(result)  # noqa: ASYNC102
            return owned.job

    async def start(self, owned: Ownership) -> None:
        """Hand `owned` over to a worker.

        If cancelled, this process still owns the job, and no worker will run it. Once the job is
        handed over, this call returns normally even if it was cancelled meanwhile.

        Raises:
            WorkerStartError: No worker took the job; this process still owns it.
        """
        request = {"job_id": owned.job.id, "env": self._environ, "claude": self._claude}
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            raise _cannot_start(error) from error
        # Closed without waiting: a checkpoint after `GO` could raise `Cancelled`.
        with contextlib.closing(trio.lowlevel.FdStream(ours.detach())) as worker:
            try:
                with theirs:
                    await self._launcher.start(request, [theirs.fileno(), *owned.fds])
            except OSError as error:
                raise _cannot_start(error) from error
            if not await self._is_up(worker) or not _send_go(worker):
                raise WorkerStartError(
                    "The worker of this job did not start: it was killed, or the limits on"
                    f" processes or open files are reached. {_WHAT_NEXT}"
                )
            owned.release()

    async def _is_up(self, worker: trio.lowlevel.FdStream) -> bool:
        word = b""

        async def listen() -> None:
            nonlocal word
            with contextlib.suppress(trio.BrokenResourceError):
                word = await worker.receive_some(len(UP))

        # A stopped fork server still holds the request, and with it the job's lock.
        return await self._launcher.is_ready(listen) and word == UP


def _send_go(worker: trio.lowlevel.FdStream) -> bool:
    """Send `GO`, which always fits into the socket; False if the worker is gone."""
    try:
        os.write(worker.fileno(), GO)
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True


def _cannot_start(error: OSError) -> WorkerStartError:
    reason = error.strerror or str(error)
    return WorkerStartError(f"The worker of this job cannot be started: {reason}. {_WHAT_NEXT}")


async def end_with_lease(store: JobStore, job_id: str) -> None:
    """Cancel the job once its caller has been silent for longer than its lease allows.

    Returns at once for a job without a lease. Raises nothing but `Cancelled`: a lease that cannot
    be read is read again later, because a disk error must not end the run.
    """
    lease = store.submissions.lease(job_id)
    is_leased = await in_thread(lease.exists)
    while is_leased:
        await trio.sleep(_LOOK_AT_LEASE_EVERY_S)
        with contextlib.suppress(OSError):
            if (lease_s := await in_thread(lease.overdue_s)) is not None:
                by = f"its lease: its caller was not heard for {lease_s:g} s"
                with contextlib.suppress(DispatchError):
                    # This rings the bell of the owner, which is this process, and it ends the run.
                    await in_thread(store.requests.cancel, job_id, by)
                    return
