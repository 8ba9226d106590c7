"""Two stores on one directory, and every step of a job's life, in any order."""

import os
import shutil
import tempfile
import time
from pathlib import Path

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
)

from agent_dispatch.jobs import record
from agent_dispatch.jobs.errors import JobStoreError, UnknownJobError
from agent_dispatch.jobs.record_files import Claim
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.model.dispatch import DispatchResult, ErrorType
from agent_dispatch.model.job import Job, JobKind, JobStatus
from tests.jobs.support import CANCELLED, DONE, FAILED, files_in, pending

NUMBERS = st.integers(0, 1)
"""The number of a store."""
_MEMORY = Path("/dev/shm")


class Expected:
    """The expected state of a job."""

    def __init__(self, job: Job) -> None:
        self.status = job.status
        self.kind = job.kind
        self.parent = job.parent
        self.owned = True
        self.guarded = False
        """A guard has copies of the job's descriptors."""
        self.cancelled = False
        self.ending = False
        self.removed = False
        self.end: Job | None = None
        """Set when it was first seen; it never changes after that."""

    @property
    def held(self) -> bool:
        """Whether a process holds it."""
        return (self.owned or self.guarded) and self.end is None and not self.removed


class Lives(RuleBasedStateMachine):
    """Jobs are made, run, guarded, handed over, abandoned, cancelled, settled and removed."""

    jobs: Bundle[Claim] = Bundle("jobs")

    @initialize()
    def open_stores(self) -> None:
        place = tempfile.mkdtemp(dir=_MEMORY if _MEMORY.is_dir() else None)
        self.directory = Path(place) / "jobs"
        self.stores = [
            JobStore(self.directory, end_processes=lambda job_id: None) for _ in range(2)
        ]
        self.expected: dict[str, Expected] = {}
        self.claims: list[Claim] = []
        self.guards: dict[str, list[int]] = {}

    def teardown(self) -> None:
        for claim in self.claims:
            self.stores[0].release(claim)
        for job_id in list(self.guards):
            self.close_guard(job_id)
        shutil.rmtree(self.directory.parent)

    # -- the owner

    @rule(target=jobs, number=NUMBERS, kind=st.sampled_from(JobKind))
    def create(self, number: int, kind: JobKind) -> Claim:
        return self.made(pending(self.stores[number], kind))

    @rule(target=jobs, number=NUMBERS, inside=jobs)
    def create_inside(self, number: int, inside: Claim) -> Claim:
        return self.made(pending(self.stores[number], JobKind.BACKGROUND, parent=inside.job.id))

    def made(self, claim: Claim) -> Claim:
        self.claims.append(claim)
        self.expected[claim.job.id] = Expected(claim.job)
        return claim

    @rule(claim=jobs, number=NUMBERS)
    def start(self, claim: Claim, number: int) -> None:
        expected = self.expected[claim.job.id]
        job = record.started(claim.job, time.time())
        if expected.owned and expected.status is JobStatus.PENDING:
            self.stores[number].update(claim, job)
            expected.status = JobStatus.RUNNING
        elif not expected.owned:
            with pytest.raises(ValueError, match="was released"):
                self.stores[number].update(claim, job)

    @rule(claim=jobs, number=NUMBERS, line=st.text(max_size=5))
    def progress(self, claim: Claim, number: int, line: str) -> None:
        if self.expected[claim.job.id].owned:
            lines = [*(claim.job.progress or []), line.encode(errors="replace").decode()]
            self.stores[number].update(claim, record.with_progress(claim.job, lines, 1.0))

    @rule(claim=jobs, number=NUMBERS)
    def hand_over(self, claim: Claim, number: int) -> None:
        if self.expected[claim.job.id].owned:
            sent = [os.dup(fd) for fd in claim.fds.to_hand_over]
            taken = self.stores[number].adopt(claim.job.id, sent)
            self.stores[1 - number].release(claim)
            claim.job, claim.fds, claim.seen = taken.job, taken.fds, taken.seen

    @rule(claim=jobs)
    def guard(self, claim: Claim) -> None:
        expected = self.expected[claim.job.id]
        if expected.owned and not expected.guarded:
            self.guards[claim.job.id] = [os.dup(fd) for fd in claim.fds.for_guard]
            expected.guarded = True

    @rule(claim=jobs)
    def guard_leaves(self, claim: Claim) -> None:
        if self.expected[claim.job.id].guarded:
            self.close_guard(claim.job.id)
            self.expected[claim.job.id].guarded = False

    def close_guard(self, job_id: str) -> None:
        for fd in self.guards.pop(job_id):
            os.close(fd)

    @rule(claim=jobs, number=NUMBERS)
    def say_that_it_ends(self, claim: Claim, number: int) -> None:
        if self.expected[claim.job.id].owned:
            self.stores[number].mark_ending(claim)
            self.expected[claim.job.id].ending = True

    @rule(claim=jobs, number=NUMBERS, result=st.sampled_from([DONE, FAILED, CANCELLED]))
    def finish(self, claim: Claim, number: int, result: DispatchResult) -> None:
        expected = self.expected[claim.job.id]
        if not expected.owned or (result is DONE and expected.status is JobStatus.PENDING):
            return
        job = record.ended(claim.job, result, time.time())
        finished = self.stores[number].finish(claim, job, tree_ended=not expected.guarded)
        assert finished.persisted
        expected.owned = False
        expected.status = finished.job.status
        expected.end = finished.job

    @rule(claim=jobs)
    def abandon(self, claim: Claim) -> None:
        if self.expected[claim.job.id].owned:
            self.stores[0].release(claim)
            self.expected[claim.job.id].owned = False

    # -- any process

    @rule(claim=jobs, number=NUMBERS)
    def settle(self, claim: Claim, number: int) -> None:
        if self.expected[claim.job.id].removed:
            with pytest.raises(UnknownJobError):
                self.stores[number].settle(claim.job.id)
            return
        self.see(claim.job.id, self.stores[number].settle(claim.job.id))

    @rule(claim=jobs, number=NUMBERS)
    def cancel(self, claim: Claim, number: int) -> None:
        expected = self.expected[claim.job.id]
        if expected.removed:
            with pytest.raises(UnknownJobError):
                self.stores[number].requests.cancel(claim.job.id, "a test")
            return
        held, ends_with_parent = expected.held, self.ends_with_parent(expected)
        asked = self.stores[number].requests.cancel(claim.job.id, "a test")
        assert asked == held
        if not held and expected.end is None:
            self.see(claim.job.id, self.stores[number].read(claim.job.id), ends_with_parent)
        expected.cancelled |= asked
        if expected.held or not expected.guarded:
            assert (self.stores[number].requests.cancelled_by(claim.job.id) is not None) == asked

    @rule(number=NUMBERS, status=st.none() | st.sampled_from(JobStatus))
    def list_them(self, number: int, status: JobStatus | None) -> None:
        listing = self.stores[number].lister.newest(status=status, limit=1000)
        assert listing.warnings == []
        ids = [row.id for row in listing.jobs]
        assert ids == sorted(ids, reverse=True)
        for row in listing.jobs:
            assert status in (None, row.status)
        if status is None:
            assert set(ids) == set(self.present())

    @rule(number=NUMBERS)
    def collect_litter(self, number: int) -> None:
        assert self.stores[number].retention.collect(100).purged == []
        held = {job_id for job_id, expected in self.expected.items() if expected.owned}
        beside = {name[:32] for name in files_in(self.directory / "live")}
        assert held <= beside <= held | self.guards.keys()

    @rule(number=NUMBERS)
    def collect_all(self, number: int) -> None:
        over = {job_id for job_id, expected in self.present().items() if not expected.held}
        dry = set(self.stores[number].retention.collect(0, dry_run=True).purged)
        assert dry == over
        assert set(self.stores[number].retention.collect(0).purged) == over
        for job_id in over:
            self.gone(job_id)

    @rule(number=NUMBERS)
    def prune_calls(self, number: int) -> None:
        over = {
            job_id
            for job_id, expected in self.present().items()
            if expected.kind is JobKind.CALL and not expected.held
        }
        assert set(self.stores[number].retention.prune(0).purged) == over
        for job_id in over:
            self.gone(job_id)

    @rule(claim=consumes(jobs), number=NUMBERS)
    def forget(self, claim: Claim, number: int) -> None:
        expected = self.expected[claim.job.id]
        if expected.held or expected.removed:
            with pytest.raises(UnknownJobError if expected.removed else JobStoreError):
                self.stores[number].retention.forget(claim.job.id)
        else:
            self.stores[number].retention.forget(claim.job.id)
            self.gone(claim.job.id)

    # -- invariants

    def gone(self, job_id: str) -> None:
        with pytest.raises(UnknownJobError):
            self.stores[0].settle(job_id)
        self.expected[job_id].removed = True

    def present(self) -> dict[str, Expected]:
        return {job_id: each for job_id, each in self.expected.items() if not each.removed}

    @invariant()
    def records_are_what_they_should_be(self) -> None:
        for job_id, expected in self.present().items():
            job = self.stores[1].read(job_id)
            if job.status.is_terminal:
                assert not expected.held
                self.see(job_id, job)
            else:
                assert expected.end is None
                assert job.status is expected.status

    def see(self, job_id: str, job: Job, ends_with_parent: bool | None = None) -> None:
        expected = self.expected[job_id]
        if expected.held:
            assert job.status is expected.status
        elif expected.end is None:
            if ends_with_parent is None:
                ends_with_parent = self.ends_with_parent(expected)
            is_cancelled = expected.cancelled or ends_with_parent
            assert job.error_type is (ErrorType.CANCELLED if is_cancelled else ErrorType.LOST)
            expected.end, expected.status = job, job.status
        else:
            assert msgspec.json.encode(job) == msgspec.json.encode(expected.end)

    def ends_with_parent(self, expected: Expected) -> bool:
        """Whether the job that it was started in has ended or is being ended."""
        if expected.parent is None:
            return False
        parent = self.expected[expected.parent]
        return not (parent.held and parent.owned) or parent.cancelled or parent.ending


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)
