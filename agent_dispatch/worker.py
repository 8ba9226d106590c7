"""The third surface: a process that runs one background job, and outlives its submitter.

It is forked from a spawner that has imported this module, or started as
`python -P -m agent_dispatch.worker FDS…`. It has a session of its own, nobody as its parent, the
null device and a log file as its streams, and the environment of its submitter; it holds the job's
lock for as long as it lives, and its guard does so for as long as a process of the run is left.
"""

import gc
import json
import os
import signal
import sys
import traceback
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import NoReturn

import trio

from agent_dispatch.dispatch.background import UP
from agent_dispatch.dispatch.service import open_service
from agent_dispatch.errors import DispatchError
from agent_dispatch.process.guard import set_process_name
from agent_dispatch.process.spawner import Spawner, start_one, start_spawner

_LEAVE_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def start_worker_spawner() -> Spawner:
    """Fork a spawner of workers; call it before any thread and before `trio.run`."""
    return start_spawner(prepare)


def prepare() -> Callable[[Mapping[str, object], Sequence[int]], None]:
    """Be a worker that waits for its job; for `process.spawner`."""
    # Once more: nobody's child, so no walk down from the submitter finds it.
    if os.fork():
        os._exit(0)
    os.setsid()
    set_process_name("dispatch-work")
    return run_worker_and_exit


def run_worker_and_exit(request: Mapping[str, object], fds: Sequence[int]) -> NoReturn:
    """Run one job to its end, and no other in the same process."""
    status = 1
    try:
        run_worker(request, fds)
        status = 0
    except Exception:
        # The log is all that is left of it.
        traceback.print_exc()
    finally:
        os._exit(status)


def run_worker(request: Mapping[str, object], fds: Sequence[int]) -> None:
    """Run one job to its end.

    Args:
        request: `job_id`, `env`, and `claude`, the program that plays it, or None.
        fds: Where to say that we are up, the log, and the job's own.
    """
    up, log, *job_fds = fds
    null = os.open(os.devnull, os.O_RDWR)
    for fd, target in ((null, 0), (null, 1), (log, 2)):
        os.dup2(fd, target)
    os.close(null)
    os.close(log)
    os.chdir("/")
    environ, claude = request["env"], request["claude"]
    assert isinstance(environ, dict)
    assert claude is None or isinstance(claude, list)
    os.write(up, UP)
    os.close(up)
    # For the one guard that is needed here.
    spawner = start_one()
    gc.enable()
    trio.run(_work, str(request["job_id"]), job_fds, environ, claude, spawner)


async def _work(
    job_id: str,
    job_fds: Sequence[int],
    environ: Mapping[str, str],
    claude: Sequence[str] | None,
    spawner: Spawner,
) -> None:
    with trio.open_signal_receiver(*_LEAVE_SIGNALS) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_end_at_signal, signals, nursery.cancel_scope)
            try:
                async with open_service(environ=environ, spawner=spawner, claude=claude) as service:
                    await service.run_handed_over(job_id, job_fds)
            except DispatchError as error:
                # The record says it too, if there is one that could be written.
                sys.stderr.write(f"job {job_id}: {error}\n")
            nursery.cancel_scope.cancel()


async def _end_at_signal(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    async for _ in signals:
        scope.cancel()


def main(argv: Sequence[str]) -> None:
    """The slow way in: descriptors by number, the request as JSON on stdin."""
    request = json.load(sys.stdin)
    if os.fork():
        os._exit(0)
    fds = [int(word) for word in argv]
    for fd in fds:
        os.set_inheritable(fd, False)
    set_process_name("dispatch-work")
    run_worker_and_exit(request, fds)


if __name__ == "__main__":
    main(sys.argv[1:])
