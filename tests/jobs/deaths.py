"""Processes that die at a system call of the job store: one process for each call.

python -m tests.jobs.deaths DIRECTORY OPERATION
"""

import os
import sys
from abc import abstractmethod
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import msgspec

from agent_dispatch.errors import DispatchError
from agent_dispatch.jobs import record
from agent_dispatch.jobs.errors import UnknownJobError
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.model.dispatch import ErrorType
from agent_dispatch.model.job import JobStatus
from tests.jobs.owners import leave
from tests.jobs.support import DyingDisk, end, ended, pending, running

MOST_CALLS = 300


class Death:
    """One operation in its own directory, and what must hold after its process has died."""

    owner_dies = False
    """Only the process that dies holds the job."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.store = JobStore(directory, end_processes=_none_left)
        self.before = ended(self.store)
        self.claim = running(self.store)
        self.prepare()

    def prepare(self) -> None:
        """Make what the operation needs besides an ended and a running job."""

    @abstractmethod
    def operate(self, store: JobStore) -> None:
        """Do it, in the process that dies."""

    def check(self) -> Iterator[str]:
        """Yield what is wrong with the files that are left."""
        yield from ()

    def live_through(self, die_at: int) -> bool:
        """Die at a call; False if the operation has fewer calls."""
        pid = os.fork()
        if pid == 0:
            disk = DyingDisk(die_at)
            store = JobStore(self.directory, disk=disk, end_processes=_none_left)
            leave(partial(self.operate, store))
        if self.owner_dies:
            self.store.release(self.claim)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if status > 0:
            raise RuntimeError(f"{type(self).__name__} failed without dying")
        return status < 0

    def violations(self) -> Iterator[str]:
        """Yield everything that is wrong; afterwards no job has an owner."""
        yield from self.check()
        job_id = self.claim.job.id
        if not self.owner_dies:
            if self.store.settle(job_id).status is not JobStatus.RUNNING:
                yield "a job that is owned was touched"
            if not end(self.store, self.claim).persisted:
                yield "a job that is owned could not end"
        listing = self.store.lister.newest()
        if listing.warnings:
            yield f"listed with {listing.warnings}"
        for row in listing.jobs:
            if not self.store.settle(row.id).status.is_terminal:
                yield f"{row.id} goes on without an owner"
        self.store.retention.collect(7)
        yield from (f"litter: {path.name}" for path in (self.directory / "live").iterdir())
        if self.store.retention.collect(0).warnings or any(self.directory.glob("*.json")):
            yield "not all that is over can be removed"
        yield from (f"litter: {path.name}" for path in self.directory.glob(".*.tmp"))


def _none_left(job_id: str) -> None:
    """Search for no processes: these jobs have none."""


class Creation(Death):
    def operate(self, store: JobStore) -> None:
        self.store.release(self.claim)
        pending(store)

    def check(self) -> Iterator[str]:
        names = {path.stem for path in self.directory.glob("*.json")}
        for job_id in names - {self.before, self.claim.job.id}:
            if self.store.read(job_id).status is not JobStatus.PENDING:
                yield "there is a job that is not pending"
            if self.store.settle(job_id).error_type is not ErrorType.LOST:
                yield "a job that nobody owns is not lost"


class Update(Death):
    owner_dies = True

    def prepare(self) -> None:
        self.new = record.with_progress(self.claim.job, ["a line"] * 20, 5.0)

    def operate(self, store: JobStore) -> None:
        store.update(self.claim, self.new)

    def check(self) -> Iterator[str]:
        if self.store.read(self.claim.job.id) not in (self.claim.job, self.new):
            yield "neither the old record nor the new one"
        if self.store.settle(self.claim.job.id).error_type is not ErrorType.LOST:
            yield "a job that nobody owns is not lost"


class End(Death):
    owner_dies = True

    def operate(self, store: JobStore) -> None:
        end(store, self.claim)

    def check(self) -> Iterator[str]:
        seen = self.store.read(self.claim.job.id)
        settled = self.store.settle(self.claim.job.id)
        if seen.status is JobStatus.DONE:
            if settled != seen or settled.result is None or settled.result.result != "Three pods":
                yield "an end that was recorded has changed"
        elif seen != self.claim.job or settled.error_type is not ErrorType.LOST:
            yield f"an end that was not recorded is {settled}"


class Verdict(Death):
    def prepare(self) -> None:
        dead = running(self.store)
        self.store.release(dead)
        self.dead = dead.job.id

    def operate(self, store: JobStore) -> None:
        store.settle(self.dead)

    def check(self) -> Iterator[str]:
        first = self.store.settle(self.dead)
        if first.error_type is not ErrorType.LOST or self.store.settle(self.dead) != first:
            yield f"the verdict is {first}"


class Cancellation(Death):
    def operate(self, store: JobStore) -> None:
        store.requests.cancel(self.claim.job.id, "a test")

    def check(self) -> Iterator[str]:
        by = self.store.requests.cancelled_by(self.claim.job.id)
        if by is not None and not "a test".startswith(by):
            yield f"cancelled by {by!r}"


class Collection(Verdict):
    def prepare(self) -> None:
        super().prepare()
        (self.directory / "live" / f".{'0' * 32}.{'1' * 16}.new").touch()
        os.close(self.store.open_log(self.before))
        orphan = self.directory / "logs" / f"{'0' * 32}.log"
        orphan.touch()
        self.store.lister.newest(status=JobStatus.DONE)

    def operate(self, store: JobStore) -> None:
        store.retention.collect(0)

    def check(self) -> Iterator[str]:
        try:
            if self.store.read(self.before).status is not JobStatus.DONE:
                yield "a record that was to be removed has changed"
        except UnknownJobError:
            pass


class Forgetting(Death):
    def operate(self, store: JobStore) -> None:
        store.retention.forget(self.before)


class Listing(Death):
    def operate(self, store: JobStore) -> None:
        store.lister.newest(status=JobStatus.DONE)

    def check(self) -> Iterator[str]:
        if [row.id for row in self.store.lister.newest(status=JobStatus.DONE).jobs] != [
            self.before
        ]:
            yield "a job is missing from the list"


OPERATIONS: dict[str, type[Death]] = {
    "creation": Creation,
    "update": Update,
    "end": End,
    "verdict": Verdict,
    "cancellation": Cancellation,
    "collection": Collection,
    "forgetting": Forgetting,
    "listing": Listing,
}


def main(directory: str, name: str) -> None:
    violations: list[str] = []
    deaths = 0
    for die_at in range(1, MOST_CALLS):
        death = OPERATIONS[name](Path(directory) / str(die_at))
        died = death.live_through(die_at)
        try:
            violations += (f"died at call {die_at}: {wrong}" for wrong in death.violations())
        except DispatchError as error:
            violations.append(f"died at call {die_at}: {error}")
        if not died:
            break
        deaths += 1
    sys.stdout.buffer.write(msgspec.json.encode({"deaths": deaths, "violations": violations}))


if __name__ == "__main__":
    main(*sys.argv[1:])
