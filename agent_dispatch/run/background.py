"""Hand a background job to a worker of its own, which goes on when its submitter has left.

The job changes hands at one moment: when the submitter sends `GO`. Until then the worker has the
job's descriptors and does nothing with them; from then on the submitter does nothing with the job,
whatever becomes of the call. A worker that reads EOF in place of `GO` runs nothing.
"""

import contextlib
import os
import socket
import sys
from collections.abc import Mapping, Sequence

import trio

from agent_dispatch.claude.fork_server import GO, UP, WORKER, ForkServer
from agent_dispatch.claude.launcher import Launcher
from agent_dispatch.errors import DispatchError
from agent_dispatch.jobs.owner import Ownership

WORKER_PROGRAM = (sys.executable, "-P", "-m", "agent_dispatch.worker")
"""The slow way to a worker. -P: a file of the current directory must not replace a module."""
_UP_TIMEOUT_S = 5.0
"""How long a worker may take to say that it is up, on a loaded machine; a forked one needs 2 ms."""

_WHAT_NEXT = (
    "Nothing of the job runs. Raise the limits (ulimit -u, ulimit -n), or let fewer jobs run at"
    " once."
)


class WorkerStartError(DispatchError):
    """No worker could be started; nothing of the job runs."""


class Workers:
    """Starts workers for one submitter."""

    def __init__(
        self,
        fork_server: ForkServer | None,
        environ: Mapping[str, str],
        claude: Sequence[str] | None,
    ) -> None:
        """Start workers by `fork_server`, if there is one, with the environment of the submitter.

        Args:
            fork_server: Forks them; None starts each as a program.
            environ: Theirs, and so their agents'.
            claude: The program that plays claude, as in `open_service`.
        """
        self._launcher = Launcher(fork_server, WORKER, WORKER_PROGRAM)
        self._environ = dict(environ)
        self._claude = None if claude is None else list(claude)

    async def start(self, owned: Ownership) -> None:
        """Hand `owned` over to a worker.

        If cancelled, the job is still owned here, and no worker runs it or ever will. Once it is
        handed over this returns, without `Cancelled`.

        Raises:
            WorkerStartError: There is none; the job is still owned here.
        """
        request = {"job_id": owned.job.id, "env": self._environ, "claude": self._claude}
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            raise _cannot_start(error) from error
        # Closed without waiting: a checkpoint after `GO` could tell of a cancellation.
        with contextlib.closing(trio.lowlevel.FdStream(ours.detach())) as worker:
            try:
                with theirs:
                    await self._launcher.start(request, [theirs.fileno(), *owned.fds])
            except OSError as error:
                raise _cannot_start(error) from error
            if not await self._is_up(worker) or not _tell(worker, GO):
                raise WorkerStartError(
                    "The worker of this job did not start: it was killed, or the limits on"
                    f" processes or open files are reached. {_WHAT_NEXT}"
                )
            owned.let_go()

    async def _is_up(self, worker: trio.lowlevel.FdStream) -> bool:
        with trio.move_on_after(_UP_TIMEOUT_S):
            try:
                return await worker.receive_some(len(UP)) == UP
            except trio.BrokenResourceError:
                return False
        # It lies unread with a fork server that was stopped, and with it the job's lock.
        self._launcher.give_up()
        return False


def _tell(worker: trio.lowlevel.FdStream, word: bytes) -> bool:
    """Send a word, which the socket has room for; False if nobody is there to read it."""
    try:
        os.write(worker.fileno(), word)
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True


def _cannot_start(error: OSError) -> WorkerStartError:
    reason = error.strerror or str(error)
    return WorkerStartError(f"The worker of this job cannot be started: {reason}. {_WHAT_NEXT}")
