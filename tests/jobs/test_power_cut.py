"""Whenever the power fails, every acknowledged record is there and whole."""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent_dispatch.jobs import record
from agent_dispatch.jobs.errors import BrokenJobError, UnknownJobError
from agent_dispatch.jobs.remote_callers import Submission
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.model.dispatch import ErrorType
from agent_dispatch.model.job import Job, JobStatus
from tests.jobs.power_cut import PowerCutDisk
from tests.jobs.support import DONE, end, pending

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")


class Timeline(PowerCutDisk):
    """Checks, before every system call, what a power cut would leave."""

    def __init__(self, root: Path, look: Callable[["Timeline"], None]) -> None:
        super().__init__(root)
        self._look = look

    def call(self, name: str, real: Callable[..., Any], *args: Any) -> Any:
        self._look(self)
        return super().call(name, real, *args)


class ForgetfulTimeline(Timeline):
    """Forgets every sync."""

    def call(self, name: str, real: Callable[..., Any], *args: Any) -> Any:
        return None if name == "fsync" else super().call(name, real, *args)


class History:
    """Two jobs from their beginning to their end, checked at each moment."""

    def __init__(self, directory: Path, *, names_survive: bool) -> None:
        self._root, self._world = directory / "root", directory / "world"
        self._root.mkdir(parents=True)
        self._names_survive = names_survive
        self._acknowledged: dict[str, Job] = {}

    def live_through(self, timeline: type[Timeline]) -> int:
        """Check before each system call; return their number."""
        disk = timeline(self._root, self._look)
        store = JobStore(self._root / "jobs", disk=disk)
        for _ in range(2):
            claim = pending(store)
            self._acknowledged[claim.job.id] = claim.job
            store.update(claim, record.started(claim.job, 1.0))
            store.update(claim, record.with_progress(claim.job, ["a line"], 2.0))
            finished = end(store, claim, DONE)
            assert finished.persisted
            self._acknowledged[claim.job.id] = finished.job
        store.lister.newest(status=JobStatus.DONE)
        self._look(disk)
        return disk.calls

    def _look(self, disk: PowerCutDisk) -> None:
        shutil.rmtree(self._world, ignore_errors=True)
        disk.after_a_cut(self._world, names_survive=self._names_survive)
        found = JobStore(self._world / "jobs", end_processes=lambda job_id: None)
        for job_id, job in self._acknowledged.items():
            if job.status.is_terminal:
                assert found.read(job_id) == job
            assert found.settle(job_id).status in (JobStatus.DONE, JobStatus.FAILED)
        listing = found.lister.newest()
        assert listing.warnings == []
        for row in listing.jobs:
            assert row.status is JobStatus.DONE or row.error_type is ErrorType.LOST
        found.retention.collect(7)
        assert not list((self._world / "jobs").glob("live/*"))


@pytest.mark.parametrize("names_survive", [False, True])
def test_no_power_cut_loses_or_tears_an_acknowledged_record(
    names_survive: bool, quick_directory: Path
) -> None:
    history = History(quick_directory, names_survive=names_survive)
    assert history.live_through(Timeline) > 100


@pytest.mark.parametrize("names_survive", [False, True])
def test_without_syncs_a_power_cut_would_lose_records(
    names_survive: bool, quick_directory: Path
) -> None:
    history = History(quick_directory, names_survive=names_survive)
    with pytest.raises((AssertionError, UnknownJobError, BrokenJobError)):
        history.live_through(ForgetfulTimeline)


@pytest.mark.parametrize("names_survive", [False, True])
def test_a_submission_and_its_beginning_are_not_forgotten(
    tmp_path: Path, names_survive: bool
) -> None:
    root, world = tmp_path / "root", tmp_path / "world"
    root.mkdir()
    disk = PowerCutDisk(root)
    submissions = JobStore(root / "jobs", disk=disk).submissions
    job_id, submission = "0" * 32, Submission("a digest", "laptop")
    os.close(submissions.take(job_id, submission))
    submissions.begin(job_id)
    disk.after_a_cut(world, names_survive=names_survive)
    found = JobStore(world / "jobs").submissions
    assert (found.of(job_id), found.has_begun(job_id)) == (submission, True)
