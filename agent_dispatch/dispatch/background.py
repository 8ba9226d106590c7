"""Hand a background job to a worker of its own, which outlives whoever submitted it."""

import contextlib
import os
import sys
from collections.abc import Mapping, Sequence

import trio

from agent_dispatch.errors import DispatchError
from agent_dispatch.jobs.owner import Ownership
from agent_dispatch.process.launcher import Launcher
from agent_dispatch.process.spawner import Spawner

# -P: a file of the directory we happen to be in must not take the place of a module.
WORKER_PROGRAM = (sys.executable, "-P", "-m", "agent_dispatch.worker")
UP = b"up"
"""What a worker says once it has the job's descriptors."""
_UP_TIMEOUT_S = 30.0
"""How long a loaded machine may take to start Python; a forked worker needs 2 ms."""

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
        spawner: Spawner | None,
        environ: Mapping[str, str],
        claude: Sequence[str] | None,
    ) -> None:
        """Start workers by `spawner`, if there is one, with the environment of the submitter.

        Args:
            spawner: Forks them; None starts each as a program.
            environ: Theirs, and so their agents'.
            claude: The program that plays claude, as in `open_service`.
        """
        self._launcher = Launcher(spawner, WORKER_PROGRAM)
        self._environ = dict(environ)
        self._claude = None if claude is None else list(claude)

    async def start(self, owned: Ownership) -> None:
        """Hand `owned` over to a worker.

        Raises:
            WorkerStartError: There is none; the job is still owned here.
        """
        request = {"job_id": owned.job.id, "env": self._environ, "claude": self._claude}
        try:
            read, write = os.pipe()
        except OSError as error:
            raise _cannot_start(error) from error
        async with trio.lowlevel.FdStream(read) as answer:
            try:
                await self._launcher.start(request, [write, *owned.fds])
            except OSError as error:
                raise _cannot_start(error) from error
            finally:
                os.close(write)
            word = b""
            with trio.move_on_after(_UP_TIMEOUT_S), contextlib.suppress(trio.BrokenResourceError):
                word = await answer.receive_some(len(UP))
        if word != UP:
            raise WorkerStartError(
                "The worker of this job did not start: it was killed, or the limits on processes"
                f" or open files are reached. {_WHAT_NEXT}"
            )
        owned.let_go()


def _cannot_start(error: OSError) -> WorkerStartError:
    reason = error.strerror or str(error)
    return WorkerStartError(f"The worker of this job cannot be started: {reason}. {_WHAT_NEXT}")
