"""Processes that own, watch and settle jobs, and are killed while they do.

own DIRECTORY                    run a job for ever, after printing its id
watch DIRECTORY                  watch the job named on stdin until it has ended
settle DIRECTORY ID...           ten processes settle the same jobs at the same time
crash DIRECTORY KILLS SEED       kill writers at random moments, and check what they leave
"""

import os
import random
import select
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NoReturn

import msgspec

from agent_dispatch.errors import DispatchError
from agent_dispatch.jobs import record
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.model.job import Job, JobStatus
from tests.jobs.support import CANCELLED, DONE, FAILED, end, pending, running

LONGEST_LIFE_S = 0.1


def own(directory: Path) -> None:
    claim = running(JobStore(directory))
    say(claim.job.id)
    signal.pause()


def watch(directory: Path) -> None:
    store = JobStore(directory)
    job_id = sys.stdin.readline().strip()
    say("watching")
    looks = 1
    while not (job := store.settle(job_id)).status.is_terminal:
        looks += 1
    say(f"{looks} {job.status}")


def settle(directory: Path, ids: list[str]) -> None:
    gate, opener = os.pipe()

    def one(write: int) -> None:
        os.close(opener)
        os.read(gate, 1)
        settle_all(directory, ids, write)

    reads = [fork(one) for _ in range(10)]
    os.close(opener)  # The last end open: all of them start.
    views = []
    for _, read in reads:
        with open(read, "rb") as file:
            views.append(msgspec.Raw(file.read()))
    for pid, _ in reads:
        os.waitpid(pid, 0)
    say(msgspec.json.encode(views).decode())


def settle_all(directory: Path, ids: list[str], write: int) -> None:
    store = JobStore(directory)
    view: dict[str, Job] = {}
    for job_id in ids:
        # "Still running" while another of these processes holds the lock: try again.
        while not (job := store.settle(job_id)).status.is_terminal:
            pass
        view[job_id] = job
    with open(write, "wb") as file:
        file.write(msgspec.json.encode(view))


def crash(directory: Path, kills: int, seed: int) -> None:
    chance = random.Random(seed)
    acknowledged: dict[str, set[str]] = {}
    violations: list[str] = []
    for _ in range(kills // 2):
        # Two at a time, so that one may also be killed while it works on the other's jobs.
        writers = [
            fork(partial(live_dangerously, directory, random.Random(chance.random())))
            for _ in range(2)
        ]
        for pid, _ in writers:
            select.select([], [], [], chance.uniform(0, LONGEST_LIFE_S))
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        for _, read in writers:
            with open(read) as file:
                for line in file.read().split("\n")[:-1]:
                    job_id, status = line.split()
                    acknowledged.setdefault(job_id, set()).add(status)
        violations += check(JobStore(directory), directory, acknowledged)
    report = {"kills": kills, "acknowledged": len(acknowledged), "violations": violations}
    say(msgspec.json.encode(report).decode())


def live_dangerously(directory: Path, chance: random.Random, write: int) -> None:
    """Create, run and end jobs, and work on those of others; acknowledge what is durable."""
    store = JobStore(directory)

    def acknowledge(job: Job) -> None:
        os.write(write, f"{job.id} {job.status}\n".encode())

    while True:
        claim = pending(store)
        acknowledge(claim.job)
        for row in store.lister.newest(status=JobStatus.RUNNING).jobs:
            store.requests.cancel(row.id, "a test")
        if chance.random() < 0.8:
            store.update(claim, record.started(claim.job, time.time()))
            for line in range(chance.randrange(3)):
                store.update(claim, record.with_progress(claim.job, [f"line {line}"], 1.0))
            result = chance.choice([DONE, FAILED, CANCELLED])
        else:
            result = chance.choice([FAILED, CANCELLED])
        finished = end(store, claim, result)
        assert finished.persisted
        acknowledge(finished.job)
        if chance.random() < 0.2:
            store.retention.collect(7)


def check(store: JobStore, directory: Path, acknowledged: dict[str, set[str]]) -> list[str]:
    """What is wrong after a kill; settles every job."""
    wrong: list[str] = []
    for path in directory.glob("*.json"):
        try:
            job = store.settle(path.stem)
        except DispatchError as error:
            wrong.append(f"torn: {error}")
            continue
        if not job.status.is_terminal:
            wrong.append(f"goes on without an owner: {job.id}")
        ends = acknowledged.get(job.id, set()) - {"pending"}
        if ends not in (set(), {job.status.value}):
            wrong.append(f"{job.id} was {ends} and is {job.status}")
    wrong += [
        f"lost: {job_id}" for job_id in acknowledged if not (directory / f"{job_id}.json").exists()
    ]
    if store.lister.newest(status=JobStatus.RUNNING).jobs or store.lister.newest().warnings:
        wrong.append("listed wrongly")
    store.retention.collect(7)
    wrong += [f"litter: {path.name}" for path in (directory / "live").glob("*")]
    return wrong


def fork(run: Callable[[int], None]) -> tuple[int, int]:
    """Run something in its own process; return the process and its output."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        leave(lambda: run(write))
    os.close(write)
    return pid, read


def leave(run: Callable[[], None]) -> NoReturn:
    status = 1
    try:
        run()
        status = 0
    finally:
        os._exit(status)


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main(command: str, directory: str, *rest: str) -> None:
    match command:
        case "own":
            own(Path(directory))
        case "watch":
            watch(Path(directory))
        case "settle":
            settle(Path(directory), list(rest))
        case "crash":
            crash(Path(directory), int(rest[0]), int(rest[1]))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(*sys.argv[1:])
