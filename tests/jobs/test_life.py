"""Two stores on one directory, and whatever jobs can go through, in any order."""

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

from agent_dispatch.jobs import verdict
from agent_dispatch.jobs.errors import JobStoreError, UnknownJobError
from agent_dispatch.jobs.file_store import FileJobStore
from agent_dispatch.jobs.store import Claim
from agent_dispatch.model.dispatch import DispatchResult, ErrorType
from agent_dispatch.model.job import Job, JobKind, JobStatus
from tests.jobs.support import CANCELLED, DONE, FAILED, files_in, pending

FAR_FUTURE_S = 4e9


class Expected:
    """What is known of a job."""

    def __init__(self, job: Job) -> None:
        self.status = job.status
        self.owned = True
        self.cancelled = False
        self.end: Job | None = None
        """Set once somebody has seen it; from then on it never changes."""


class Lives(RuleBasedStateMachine):
    """Jobs are made, run, abandoned, cancelled, settled and removed."""

    jobs: Bundle[Claim] = Bundle("jobs")

    @initialize()
    def open_stores(self) -> None:
        self.directory = Path(tempfile.mkdtemp()) / "jobs"
        self.stores = [FileJobStore(self.directory), FileJobStore(self.directory)]
        self.expected: dict[str, Expected] = {}
        self.claims: list[Claim] = []

    def teardown(self) -> None:
        for claim in self.claims:
            self.stores[0].release(claim)
        shutil.rmtree(self.directory.parent)

    def store(self, number: int) -> FileJobStore:
        return self.stores[number]

    @rule(target=jobs, number=st.integers(0, 1), kind=st.sampled_from(JobKind))
    def create(self, number: int, kind: JobKind) -> Claim:
        claim = pending(self.store(number), kind)
        self.claims.append(claim)
        self.expected[claim.job.id] = Expected(claim.job)
        return claim

    @rule(claim=jobs, number=st.integers(0, 1))
    def start(self, claim: Claim, number: int) -> None:
        expected = self.expected[claim.job.id]
        job = verdict.started(claim.job, time.time())
        if expected.owned and expected.status is JobStatus.PENDING:
            self.store(number).update(claim, job)
            expected.status = JobStatus.RUNNING
        elif not expected.owned:
            with pytest.raises(ValueError, match="let go of"):
                self.store(number).update(claim, job)

    @rule(claim=jobs, number=st.integers(0, 1), line=st.text(max_size=5))
    def progress(self, claim: Claim, number: int, line: str) -> None:
        if self.expected[claim.job.id].owned:
            lines = [*(claim.job.progress or []), line.encode(errors="replace").decode()]
            self.store(number).update(claim, verdict.with_progress(claim.job, lines, 1.0))

    @rule(claim=jobs, number=st.integers(0, 1), result=st.sampled_from([DONE, FAILED, CANCELLED]))
    def finish(self, claim: Claim, number: int, result: DispatchResult) -> None:
        expected = self.expected[claim.job.id]
        if not expected.owned or (result is DONE and expected.status is JobStatus.PENDING):
            return
        finished = self.store(number).finish(claim, verdict.ended(claim.job, result, time.time()))
        assert finished.persisted
        expected.owned = False
        expected.status = finished.job.status
        expected.end = finished.job

    @rule(claim=jobs)
    def abandon(self, claim: Claim) -> None:
        expected = self.expected[claim.job.id]
        if expected.owned:
            self.stores[0].release(claim)
            expected.owned = False

    @rule(claim=jobs, number=st.integers(0, 1))
    def settle(self, claim: Claim, number: int) -> None:
        self.see(claim.job.id, self.store(number).settle(claim.job.id))

    @rule(claim=jobs, number=st.integers(0, 1))
    def cancel(self, claim: Claim, number: int) -> None:
        expected = self.expected[claim.job.id]
        asked = self.store(number).request_cancel(claim.job.id, "a test")
        assert asked == expected.owned
        expected.cancelled |= asked
        assert (self.store(number).cancelled_by(claim.job.id) is not None) == asked

    @rule(number=st.integers(0, 1), status=st.none() | st.sampled_from(JobStatus))
    def list_them(self, number: int, status: JobStatus | None) -> None:
        listing = self.store(number).list_jobs(status=status, limit=1000)
        assert listing.warnings == []
        ids = [row.id for row in listing.jobs]
        assert ids == sorted(ids, reverse=True)
        for row in listing.jobs:
            assert status in (None, row.status)
        if status is None:
            assert set(ids) == set(self.expected)

    @rule(number=st.integers(0, 1))
    def collect_litter(self, number: int) -> None:
        assert self.store(number).gc(100).purged == []
        owned = {job_id for job_id, expected in self.expected.items() if expected.owned}
        assert {name[:32] for name in files_in(self.directory / "live")} == owned

    @rule(claim=consumes(jobs), number=st.integers(0, 1))
    def forget(self, claim: Claim, number: int) -> None:
        expected = self.expected[claim.job.id]
        if expected.owned:
            with pytest.raises(JobStoreError):
                self.store(number).forget(claim.job.id)
            return
        self.store(number).forget(claim.job.id)
        del self.expected[claim.job.id]
        with pytest.raises(UnknownJobError):
            self.stores[0].settle(claim.job.id)

    @invariant()
    def records_are_what_they_should_be(self) -> None:
        for job_id, expected in self.expected.items():
            job = self.stores[1].read(job_id)
            if job.status.is_terminal:
                assert not expected.owned
                self.see(job_id, job)
            else:
                assert expected.end is None
                assert job.status is expected.status

    def see(self, job_id: str, job: Job) -> None:
        expected = self.expected[job_id]
        if expected.owned:
            assert job.status is expected.status
        elif expected.end is None:
            wanted = ErrorType.CANCELLED if expected.cancelled else ErrorType.LOST
            assert job.error_type is wanted
            expected.end, expected.status = job, job.status
        else:
            assert msgspec.json.encode(job) == msgspec.json.encode(expected.end)


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)
