"""Submits a job and hands it to a worker, over a socket as the fork server does it.

submit DIRECTORY     record a job, send it to a worker, print its id, and wait to be killed
work DIRECTORY FD    adopt the job that arrives on FD, and run it until the FIFO `go` is written to
"""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import trio

from agent_dispatch.jobs.owner import adopt_job, create_job
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.model.job import JobKind
from tests.jobs.support import DONE, REQUEST


async def submit(directory: Path) -> None:
    store = JobStore(directory)
    ours, theirs = socket.socketpair()
    worker = [sys.executable, "-m", "tests.jobs.workers", "work", str(directory)]
    async with create_job(store, store.new_job(REQUEST, kind=JobKind.BACKGROUND)) as own:
        await trio.lowlevel.open_process(
            [*worker, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            start_new_session=True,
            stdout=subprocess.DEVNULL,
        )
        socket.send_fds(ours, [own.job.id.encode()], own.fds)
        own.release()
        # The worker may not have read them yet.
        os.write(1, f"{own.job.id}\n".encode())
        await trio.to_thread.run_sync(signal.pause)


async def work(directory: Path, sock: socket.socket) -> None:
    job_id, fds, _, _ = socket.recv_fds(sock, 100, 10)
    async with adopt_job(JobStore(directory), job_id.decode(), fds) as own:
        own.note_started()
        await trio.to_thread.run_sync((directory / "go").read_text)
        await own.finish(DONE)


if __name__ == "__main__":
    if sys.argv[1] == "submit":
        trio.run(submit, Path(sys.argv[2]))
    else:
        trio.run(work, Path(sys.argv[2]), socket.socket(fileno=int(sys.argv[3])))
