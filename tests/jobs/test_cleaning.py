import fcntl
import math
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from agent_dispatch.errors import InvalidRequestError
from agent_dispatch.jobs.errors import JobStoreError
from agent_dispatch.jobs.ids import IdSource
from agent_dispatch.jobs.remote_callers import Submission
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.model.job import JobKind, JobStatus
from tests.jobs.support import DONE, FAILED, end, ended, files_in, pending, running
from tests.jobs.test_history import put_foreign

DAY_S = 86_400.0


class Clock:
    """A wall clock that can be set."""

    def __init__(self) -> None:
        self.now_s = time.time()

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def aging(directory: Path, clock: Clock) -> JobStore:
    """A store with that clock."""
    ids = IdSource(now_ns=lambda: int(clock.now_s * 1e9))
    return JobStore(directory, now=clock, ids=ids)


def over(store: JobStore, clock: Clock, kind: JobKind = JobKind.BACKGROUND) -> str:
    claim = running(store, kind)
    end(store, claim, now=clock.now_s)
    return claim.job.id


def test_background_jobs_are_kept_for_ever_or_for_the_days_that_are_set(
    aging: JobStore, clock: Clock
) -> None:
    long_running = running(aging, JobKind.BACKGROUND)
    old = over(aging, clock)
    reference = ended(aging, DONE, kind=JobKind.CALL, ref=True)
    clock.now_s += 5 * DAY_S
    young = over(aging, clock)
    # Counted from the end of a job, not from its beginning.
    end(aging, long_running, now=clock.now_s)
    assert aging.retention.prune(7).purged == []
    assert aging.retention.prune(7, 3).purged == [old]
    assert aging.retention.prune(7, 3).purged == []
    clock.now_s += 4 * DAY_S
    assert sorted(aging.retention.prune(7, 3).purged) == sorted([young, long_running.job.id])
    assert aging.read(reference).status is JobStatus.DONE


def test_jobs_that_ended_long_ago_are_removed_and_others_are_kept(
    aging: JobStore, clock: Clock, directory: Path
) -> None:
    claim = running(aging)
    old = [over(aging, clock) for _ in range(3)]
    clock.now_s += 5 * DAY_S
    end(aging, claim, now=clock.now_s)
    young = over(aging, clock)
    clock.now_s += 3 * DAY_S
    assert sorted(aging.retention.collect(7, dry_run=True).purged) == sorted(old)
    assert set(old) <= {path.stem for path in directory.glob("*.json")}
    for _ in range(2):
        assert sorted(aging.retention.collect(7).purged) in (sorted(old), [])
    assert {path.stem for path in directory.glob("*.json")} == {claim.job.id, young}


def test_a_job_that_has_not_ended_is_kept_whatever_the_clock_says(
    aging: JobStore, clock: Clock
) -> None:
    claims = [running(aging), pending(aging)]
    for step_s in (1000 * DAY_S, -5000 * DAY_S, 9000 * DAY_S):
        clock.now_s += step_s
        assert aging.retention.collect(0).purged == []
        assert aging.retention.prune(0).purged == []
        assert [aging.settle(claim.job.id) for claim in claims] == [c.job for c in claims]


def test_zero_days_remove_every_ended_job_even_one_from_the_future(
    aging: JobStore, clock: Clock, directory: Path
) -> None:
    over(aging, clock)
    clock.now_s -= 1000 * DAY_S
    over(aging, clock)
    foreign = put_foreign(directory, "done", created_at=4e9)
    assert len(aging.retention.collect(0).purged) == 3
    assert foreign not in {path.stem for path in directory.iterdir()}
    assert files_in(directory) == set()


@pytest.mark.parametrize("days", [-1, math.nan, math.inf, -0.001])
def test_an_age_that_is_not_a_number_from_zero_on_is_refused(
    days: float, store: JobStore, directory: Path
) -> None:
    job_id = ended(store)
    with pytest.raises(InvalidRequestError, match="from 0 on"):
        store.retention.collect(days)
    assert store.read(job_id).status is JobStatus.DONE


def test_calls_have_their_own_retention_and_references_are_kept(
    aging: JobStore, clock: Clock
) -> None:
    call = over(aging, clock, JobKind.CALL)
    background = over(aging, clock)
    ref = running(aging, JobKind.CALL, ref=True)
    end(aging, ref, now=clock.now_s)
    clock.now_s += 8 * DAY_S
    young = over(aging, clock, JobKind.CALL)
    assert aging.retention.prune(7).purged == [call]
    assert {job.id for job in aging.lister.newest().jobs} == {background, ref.job.id, young}


def test_an_answer_for_another_machine_is_kept_for_a_day(
    aging: JobStore, clock: Clock, directory: Path
) -> None:
    call = over(aging, clock, JobKind.CALL)
    from_remote = over(aging, clock, JobKind.CALL)
    taken = directory / "remote" / "jobs" / f"{from_remote}.json"
    taken.parent.mkdir(parents=True)
    taken.write_bytes(msgspec.json.encode(Submission("digest")))
    assert aging.retention.prune(0).purged == [call]
    clock.now_s += 0.9 * DAY_S
    assert aging.retention.prune(0).purged == []
    clock.now_s += 0.2 * DAY_S
    assert aging.retention.prune(7).purged == []
    assert aging.retention.prune(0).purged == [from_remote]


def test_a_wrong_index_removes_nothing(store: JobStore, directory: Path) -> None:
    job_id = ended(store, DONE, kind=JobKind.BACKGROUND)
    running_id = running(store).job.id
    (directory / ".index").write_text(f"{job_id} done call 12\n{running_id} done call 12\n")
    assert store.retention.prune(1).purged == []
    assert store.retention.collect(1).purged == []
    assert store.retention.collect(0).purged == [job_id]
    assert store.settle(running_id).status is JobStatus.RUNNING


def test_the_index_drops_removed_jobs(store: JobStore, directory: Path) -> None:
    done, failed = ended(store, DONE), ended(store, FAILED, kind=JobKind.CALL)
    assert len(store.lister.newest(status=JobStatus.DONE).jobs) == 1
    assert failed in (directory / ".index").read_text()
    assert store.retention.prune(0).purged == [failed]
    assert failed not in (directory / ".index").read_text()
    assert done in (directory / ".index").read_text()


def test_litter_of_dead_processes_is_removed_and_live_files_are_kept(
    store: JobStore, directory: Path
) -> None:
    live = directory / "live"
    alive = running(store)
    done = ended(store)
    unborn = pending(store)
    (directory / f"{unborn.job.id}.json").unlink()
    store.release(unborn)
    before = files_in(directory)
    litter = {
        live / f"{done}.cancel",
        live / f"{done}.lock",
        live / f"{done}.tmp",
        live / f".{done}.0123456789abcdef.new",
        live / f"{'0' * 32}.tmp",
        directory / "logs" / f"{'0' * 32}.log",
    }
    (directory / "logs").mkdir()
    for path in litter:
        path.touch()
    for name in ("not-ours", f"{done}.txt"):
        (live / name).touch()
    collected = store.retention.collect(7)
    assert collected.litter == len(litter) + 3
    assert collected.warnings == [
        f"live/{name}: not a name that agent-dispatch gives; left alone"
        for name in sorted(["not-ours", f"{done}.txt"])
    ]
    assert files_in(directory) == before - {
        f"{unborn.job.id}{suffix}" for suffix in (".lock", ".alive", ".bell")
    } | {"not-ours", f"{done}.txt"}
    assert store.settle(alive.job.id).status is JobStatus.RUNNING
    assert store.retention.collect(7).litter == 0


def test_a_dry_run_touches_no_litter(store: JobStore, directory: Path) -> None:
    job_id = ended(store)
    (directory / "live" / f"{job_id}.cancel").touch()
    assert store.retention.collect(7, dry_run=True).litter == 0
    assert f"{job_id}.cancel" in files_in(directory)


def test_a_lock_file_that_is_being_made_is_not_litter(store: JobStore, directory: Path) -> None:
    ended(store)
    new = directory / "live" / f".{'0' * 32}.0123456789abcdef.new"
    holder = os.open(new, os.O_RDWR | os.O_CREAT)
    fcntl.flock(holder, fcntl.LOCK_EX)
    store.retention.collect(0)
    assert new.exists()
    os.close(holder)
    assert store.retention.collect(0).litter == 1


def test_a_collection_settles_jobs_without_an_owner(store: JobStore, directory: Path) -> None:
    claim = running(store)
    store.release(claim)
    assert store.retention.collect(7).purged == []
    assert store.read(claim.job.id).status is JobStatus.FAILED
    assert files_in(directory) == {f"{claim.job.id}.json"}


def test_two_collections_at_once_remove_each_job_once(
    store: JobStore, other: JobStore, directory: Path
) -> None:
    live = running(store)
    old = {ended(store) for _ in range(30)}
    together = threading.Barrier(2)

    def collect(store: JobStore) -> list[str]:
        together.wait()
        return store.retention.collect(0).purged

    with ThreadPoolExecutor(2) as pool:
        purged = [job_id for ids in pool.map(collect, [store, other]) for job_id in ids]
    assert sorted(purged) == sorted(old)
    assert store.settle(live.job.id).status is JobStatus.RUNNING
    end(store, live)
    assert files_in(directory) == {f"{live.job.id}.json"}


def test_only_an_ended_job_can_be_forgotten(store: JobStore, directory: Path) -> None:
    claim = running(store)
    with pytest.raises(JobStoreError, match="is kept until it has ended"):
        store.retention.forget(claim.job.id)
    end(store, claim)
    store.retention.forget(claim.job.id)
    assert files_in(directory) == set()


def test_a_job_that_is_taken_again_is_listed_as_it_ended(store: JobStore) -> None:
    claim = pending(store)
    job_id = claim.job.id
    store.release(claim)  # As if its owner had died before the job began.
    assert [job.id for job in store.lister.newest(status=JobStatus.FAILED).jobs] == [job_id]
    store.retention.forget_unbegun(job_id)
    again = running(store, job_id=job_id)
    end(store, again)
    assert [job.id for job in store.lister.newest(status=JobStatus.DONE).jobs] == [job_id]
    assert store.lister.newest(status=JobStatus.FAILED).jobs == []
