"""The third surface: a process that runs one background job and outlives its submitter.

The submitter's fork server forks it; without a fork server it is started as
`python -P -m agent_dispatch.worker FDS…`. It has a session of its own, no living parent, the null
device as its streams and the environment of its submitter. It holds the job's lock while it works,
and its guards hold it while a process of the run is left. Its stderr goes to the job's log.

The fork server imports this module, so the top of it imports only the standard library, and what
uses nothing else.
"""

import gc
import os
import signal
import sys
import traceback
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import redirect_stderr

from agent_dispatch.claude import guard, slow_start
from agent_dispatch.claude.fork_server import (
    GO,
    GUARD,
    UP,
    WORKER,
    Entry,
    ForkServer,
    start_fork_server,
)
from agent_dispatch.claude.prctl import set_process_name

_LEAVE_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run(request: Mapping[str, object], fds: Sequence[int]) -> None:
    """Be the worker of one job, in a process that was forked for it.

    Args:
        request: `job_id`, `env`, and `claude`: the program to run as claude, or None.
        fds: The socket to the submitter, then the descriptors of the job.
    """
    # Without a living parent, so that a client that kills its server's tree does not find it.
    if os.fork():
        return
    os.setsid()
    set_process_name("dispatch-work")
    os.chdir("/")
    submitter, *job_fds = fds
    is_ours = wait_for_go(submitter)
    # Before the first thread. It gets none of our descriptors.
    guards = start_fork_server()
    # Until the event loop listens, a signal waits.
    signal.pthread_sigmask(signal.SIG_BLOCK, _LEAVE_SIGNALS)
    _run_job(request, job_fds, guards, is_ours=is_ours)


def wait_for_go(fd: int) -> bool:
    """Report to the submitter, and return whether the job is ours then. Closes `fd`."""
    try:
        os.write(fd, UP)
        return os.read(fd, len(GO)) == GO
    except (BrokenPipeError, ConnectionResetError):
        return False
    finally:
        os.close(fd)


def _run_job(
    request: Mapping[str, object], fds: Sequence[int], guards: ForkServer, *, is_ours: bool
) -> None:
    from agent_dispatch.config.paths import config_path, jobs_path
    from agent_dispatch.jobs.log import JobLog
    from agent_dispatch.jobs.store import JobStore

    gc.enable()  # The fork server had disabled it.
    job_id, environ, claude = str(request["job_id"]), request["env"], request["claude"]
    assert isinstance(environ, dict)
    assert claude is None or isinstance(claude, list)

    def open_log() -> int:
        return JobStore(jobs_path(environ, config_path(environ))).open_log(job_id)

    with JobLog(open_log) as log, redirect_stderr(log):
        if not is_ours:
            # Its submitter has recorded it as cancelled or failed, or has died: it must not run.
            sys.stderr.write(f"job {job_id}: its submitter is gone; not run\n")
            return
        try:
            import trio

            from agent_dispatch.preload import preload_modules

            preload_modules()
            trio.run(_work, job_id, fds, environ, claude, guards)
        except Exception:
            # Nobody else sees it: the log must have it.
            traceback.print_exc()
            raise


async def _work(
    job_id: str,
    fds: Sequence[int],
    environ: Mapping[str, str],
    claude: Sequence[str] | None,
    guards: ForkServer,
) -> None:
    import trio

    from agent_dispatch.errors import DispatchError
    from agent_dispatch.run.open_service import open_service

    with trio.open_signal_receiver(*_LEAVE_SIGNALS) as signals:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _LEAVE_SIGNALS)
        async with trio.open_nursery() as nursery:

            async def end_at_signal(signals: AsyncIterator[int]) -> None:
                async for _ in signals:
                    nursery.cancel_scope.cancel()

            nursery.start_soon(end_at_signal, signals)
            try:
                async with open_service(
                    environ=environ, fork_server=guards, claude=claude
                ) as service:
                    await service.run_handed_over(job_id, fds)
            except DispatchError as error:
                # The record has it too, if it could be written.
                sys.stderr.write(f"job {job_id}: {error}\n")
            nursery.cancel_scope.cancel()


ENTRIES: Mapping[str, Entry] = {GUARD: guard.run, WORKER: run}
"""What the fork server of an owner can fork."""


def main(argv: Sequence[str]) -> None:
    """Start without a fork server."""
    slow_start.start(run, argv)


if __name__ == "__main__":
    main(sys.argv[1:])
