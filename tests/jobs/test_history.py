import json
import time
import uuid
from pathlib import Path

import msgspec
import pytest

from agent_dispatch.jobs.errors import JobStoreError
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.model.dispatch import DispatchRequest, DispatchResult, ErrorType
from agent_dispatch.model.job import JobKind, JobStatus
from tests.jobs.support import (
    CANCELLED,
    DONE,
    FAILED,
    CountingDisk,
    end,
    ended,
    pending,
    running,
)


def ids(store: JobStore, status: JobStatus | None = None, limit: int = 50) -> list[str]:
    return [job.id for job in store.lister.newest(status=status, limit=limit).jobs]


def put_foreign(directory: Path, status: str, created_at: float = 1.0) -> str:
    """A record as the predecessor writes it."""
    job_id = uuid.uuid4().hex
    fields = {
        "id": job_id,
        "agent": "infra",
        "task": "t",
        "status": status,
        "created_at": created_at,
    }
    directory.mkdir(exist_ok=True)
    (directory / f"{job_id}.json").write_text(json.dumps(fields, indent=2))
    return job_id


def test_a_missing_directory_has_no_jobs(store: JobStore, directory: Path) -> None:
    for status in (None, *JobStatus):
        assert store.lister.newest(status=status) == ([], [])
    assert not directory.exists()


def test_the_newest_jobs_come_first_up_to_the_limit(store: JobStore) -> None:
    made = [ended(store) for _ in range(30)]
    assert ids(store) == made[::-1]
    assert ids(store, limit=1) == made[-1:]
    assert ids(store, limit=29) == made[:0:-1]


def test_jobs_of_the_predecessor_come_last(store: JobStore, directory: Path) -> None:
    foreign = {put_foreign(directory, "done", time.time() + 1000) for _ in range(5)}
    ours = [ended(store) for _ in range(3)]
    assert ids(store)[:3] == ours[::-1]
    assert set(ids(store)[3:]) == foreign
    assert set(ids(store, JobStatus.DONE)[3:]) == foreign


def test_a_row_says_how_the_job_went(store: JobStore) -> None:
    done = ended(store, DONE)
    failed = ended(store, FAILED)
    claim = running(store)
    rows = {row.id: row for row in store.lister.newest().jobs}
    assert (rows[done].success, rows[done].cost_usd) == (True, 0.25)
    assert (rows[failed].success, rows[failed].error_type) == (False, ErrorType.CLI_ERROR)
    assert rows[claim.job.id].success is None
    assert rows[done].completed_at is not None


def test_each_status_has_its_list(store: JobStore) -> None:
    jobs = {
        JobStatus.PENDING: [pending(store).job.id for _ in range(2)],
        JobStatus.RUNNING: [running(store).job.id for _ in range(2)],
        JobStatus.DONE: [ended(store, DONE) for _ in range(2)],
        JobStatus.FAILED: [ended(store, FAILED) for _ in range(2)],
        JobStatus.CANCELLED: [ended(store, CANCELLED) for _ in range(2)],
    }
    for _ in range(2):  # Without the index, and with it.
        for status, made in jobs.items():
            assert ids(store, status) == made[::-1]
            assert ids(store, status, limit=1) == made[:0:-1]


def test_a_job_without_an_owner_is_listed_as_it_ended(store: JobStore, other: JobStore) -> None:
    for status in (None, JobStatus.RUNNING, JobStatus.FAILED):
        claim = running(store)
        store.release(claim)
        listed = {row.id: row for row in other.lister.newest(status=status).jobs}
        if status is JobStatus.RUNNING:
            assert claim.job.id not in listed
        else:
            assert listed[claim.job.id].error_type is ErrorType.LOST


def test_a_job_of_the_predecessor_without_an_owner_is_settled_too(
    store: JobStore, directory: Path
) -> None:
    job_id = put_foreign(directory, "running")
    assert store.lister.newest().jobs[0].error_type is ErrorType.LOST
    assert json.loads((directory / f"{job_id}.json").read_text())["status"] == "failed"
    assert list((directory / "live").iterdir()) == []


def test_a_listing_reads_as_many_records_as_it_shows(directory: Path) -> None:
    store = JobStore(directory)
    for _ in range(100):
        ended(store)
    disk = CountingDisk()
    assert len(ids(JobStore(directory, disk=disk), limit=10)) == 10
    assert disk.bytes_read < 10 * 1000


def test_large_tasks_and_answers_do_not_slow_a_listing_down(directory: Path) -> None:
    store = JobStore(directory)
    request = DispatchRequest(agent="infra", task="t" * 1_000_000, context="c" * 1_000_000)
    store.create(store.new_job(request, kind=JobKind.CALL))
    ended(store, DispatchResult(agent="infra", success=True, result="r" * 8_000_000))
    disk = CountingDisk()
    watched = JobStore(directory, disk=disk)
    assert len(ids(watched)) == 2
    assert len(ids(watched, JobStatus.PENDING)) == 1
    assert disk.bytes_read < 50_000


def test_running_jobs_are_found_without_reading_the_history(directory: Path) -> None:
    store = JobStore(directory)
    for _ in range(100):
        ended(store)
    claim = running(store)
    disk = CountingDisk()
    assert ids(JobStore(directory, disk=disk), JobStatus.RUNNING) == [claim.job.id]
    assert disk.bytes_read < 1000


def test_records_in_the_index_are_not_read(directory: Path) -> None:
    store = JobStore(directory)
    failed = ended(store, FAILED)
    for _ in range(100):
        ended(store, DONE)
    assert ids(store, JobStatus.FAILED) == [failed]
    disk = CountingDisk()
    watched = JobStore(directory, disk=disk)
    assert ids(watched, JobStatus.FAILED) == [failed]
    # The index itself and one record, not a hundred.
    assert disk.bytes_read < 8000


def test_a_long_history_is_indexed_in_parts(store: JobStore, directory: Path) -> None:
    foreign = {put_foreign(directory, "done") for _ in range(5000)}
    assert ids(store, JobStatus.FAILED) == []
    lines = (directory / ".index").read_text().split()
    assert foreign <= set(lines)
    assert len(store.lister.newest(status=JobStatus.DONE, limit=10_000).jobs) == 5000


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 1000, b"\xff\xfe\n" * 10, b"done call 12\n", b"x" * 50 + b" done call nan\n"],
)
def test_a_damaged_index_changes_no_listing(
    content: bytes, store: JobStore, directory: Path
) -> None:
    done = ended(store, DONE)
    (directory / ".index").write_bytes(content)
    assert ids(store, JobStatus.DONE) == [done]
    assert ids(store, JobStatus.FAILED) == []
    assert ids(store, JobStatus.DONE) == [done]


def test_a_wrong_index_shows_no_job_with_a_wrong_status(store: JobStore, directory: Path) -> None:
    done = ended(store, DONE)
    (directory / ".index").write_text(f"{done} failed call 12\n")
    assert ids(store, JobStatus.FAILED) == []


def test_jobs_are_listed_without_an_index_that_cannot_be_used(
    store: JobStore, directory: Path
) -> None:
    done = ended(store, DONE)
    (directory / ".index").mkdir()
    assert ids(store, JobStatus.DONE) == [done]


def test_unknown_files_cause_warnings_and_our_own_do_not(store: JobStore, directory: Path) -> None:
    job_id = ended(store)
    for name in ("notes.txt", f"{job_id}.json.bak", f"{job_id.upper()}.json", "x.json"):
        (directory / name).write_text("{}")
    for name in ("slots", "sessions", "logs", "photos"):
        (directory / name).mkdir()
    (directory / ".hidden").touch()
    listing = store.lister.newest()
    assert [job.id for job in listing.jobs] == [job_id]
    assert [warning.partition(":")[0] for warning in listing.warnings] == sorted(
        ["notes.txt", f"{job_id}.json.bak", f"{job_id.upper()}.json", "x.json", "photos"]
    )


def test_many_unknown_files_are_counted_instead_of_named(store: JobStore, directory: Path) -> None:
    ended(store)
    for number in range(100):
        (directory / f"{number}.txt").touch()
    assert len(store.lister.newest().warnings) == 21
    assert store.lister.newest().warnings[-1] == "… and 80 more"


def test_broken_records_make_room_for_the_next(store: JobStore, directory: Path) -> None:
    good = ended(store)
    for _ in range(40):
        (directory / f"{ended(store)}.json").write_bytes(b"{")
    listing = store.lister.newest(limit=1)
    assert [job.id for job in listing.jobs] == [good]
    assert listing.warnings[-1] == "… and 20 more"


def test_a_file_in_place_of_the_jobs_directory_is_an_error(
    store: JobStore, directory: Path
) -> None:
    directory.write_text("a file")
    with pytest.raises(JobStoreError, match="AGENT_DISPATCH_JOBS_DIR"):
        store.lister.newest()


def test_one_lock_that_cannot_be_tried_does_not_hide_the_other_jobs(
    store: JobStore, directory: Path
) -> None:
    good, claim = ended(store), running(store)
    lock = directory / "live" / f"{claim.job.id}.lock"
    lock.unlink()
    lock.symlink_to(directory)
    listing = store.lister.newest()
    assert [job.id for job in listing.jobs] == [good]
    assert claim.job.id in listing.warnings[0]
    assert end(store, claim).persisted


def test_a_search_finds_the_newest_match_and_skips_broken_records(
    store: JobStore, directory: Path
) -> None:
    assert store.lister.find("anything", lambda _: True) is None
    cheese = msgspec.structs.replace(DONE, result="cheese")
    first, second = ended(store, cheese), ended(store, cheese)
    ended(store, DONE)
    (directory / f"{uuid.uuid4().hex}.json").write_text("cheese, broken")
    (directory / f"{uuid.uuid4().hex}.json").symlink_to("cheese")
    (directory / f"{uuid.uuid4().hex}.json").mkdir()
    found = store.lister.find("cheese", lambda _: True)
    assert found is not None
    assert found.id == second
    older = store.lister.find("cheese", lambda job: job.id != second)
    assert older is not None
    assert older.id == first
    assert store.lister.find("cheese", lambda _: False) is None
