import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from agent_dispatch.errors import DispatchError
from agent_dispatch.jobs import record
from agent_dispatch.jobs.errors import (
    BrokenJobError,
    InvalidJobIdError,
    JobOverError,
    JobStoreError,
    UnknownJobError,
)
from agent_dispatch.jobs.locks import NO_DESCRIPTORS
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.model.dispatch import DispatchResult
from agent_dispatch.model.job import JobKind, JobStatus
from agent_dispatch.model.next_step import StepKind
from tests.jobs.support import (
    DONE,
    FAILED,
    REQUEST,
    ShortWrites,
    end,
    ended,
    files_in,
    pending,
    running,
)

NOBODY = "0190b5f0000070008000000000000001"


def test_a_job_lives_from_pending_over_running_to_done(store: JobStore, other: JobStore) -> None:
    claim = store.create(store.new_job(REQUEST, kind=JobKind.CALL, parent=NOBODY, ref=True))
    job_id = claim.job.id
    assert other.settle(job_id) == claim.job
    assert (claim.job.status, claim.job.parent, claim.job.ref) == ("pending", NOBODY, True)

    store.update(claim, record.started(claim.job, 5.0))
    assert other.settle(job_id).status is JobStatus.RUNNING

    finished = end(store, claim)
    assert (finished.persisted, finished.problem) == (True, None)
    assert other.settle(job_id) == finished.job
    assert finished.job.result == msgspec.structs.replace(DONE, job_id=job_id)


def test_the_file_holds_what_the_job_holds(store: JobStore, directory: Path) -> None:
    job_id = ended(store)
    fields = json.loads((directory / f"{job_id}.json").read_text())
    assert fields["id"] == job_id
    assert fields["status"] == "done"
    assert fields["result"]["result"] == "Three pods"
    assert "context" not in fields


def test_only_the_record_of_an_ended_job_is_left(store: JobStore, directory: Path) -> None:
    claim = running(store)
    name = claim.job.id
    assert files_in(directory) == {
        f"{name}.json",
        f"{name}.lock",
        f"{name}.alive",
        f"{name}.bell",
    }
    before = len(os.listdir("/proc/self/fd"))
    end(store, claim)
    assert files_in(directory) == {f"{name}.json"}
    assert len(os.listdir("/proc/self/fd")) == before - 3


def test_a_final_record_never_changes(store: JobStore) -> None:
    claim = running(store)
    end(store, claim)
    before = store.read(claim.job.id)
    with pytest.raises(ValueError, match="was released"):
        store.update(claim, claim.job)
    with pytest.raises(ValueError, match="was released"):
        end(store, claim, FAILED)
    assert store.read(claim.job.id) == before


def test_no_status_can_be_skipped(store: JobStore) -> None:
    claim = pending(store)
    with pytest.raises(ValueError, match="cannot become done"):
        store.finish(claim, record.ended(claim.job, DONE, 1.0))
    with pytest.raises(ValueError, match="finish"):
        store.update(claim, record.ended(claim.job, FAILED, 1.0))
    with pytest.raises(ValueError, match="update"):
        store.finish(claim, record.started(claim.job, 1.0))
    with pytest.raises(ValueError, match="cannot become"):
        store.update(claim, msgspec.structs.replace(claim.job, id=NOBODY))
    assert end(store, claim, FAILED).persisted


def test_an_owner_does_not_overwrite_a_verdict(
    store: JobStore, other: JobStore, directory: Path
) -> None:
    claim = running(store)
    # Against all rules, remove the lock of a living owner.
    (directory / "live" / f"{claim.job.id}.lock").unlink()
    verdict_of_other = other.settle(claim.job.id)
    assert verdict_of_other.status is JobStatus.FAILED
    with pytest.raises(JobOverError, match="has ended"):
        store.update(claim, record.with_progress(claim.job, ["on and on"], 1.0))
    finished = end(store, claim)
    assert finished.job.status is JobStatus.DONE
    assert not finished.persisted
    assert finished.problem is not None
    assert store.read(claim.job.id) == verdict_of_other


def test_unknown_fields_of_a_record_survive_what_we_write(
    store: JobStore, other: JobStore, directory: Path
) -> None:
    claim = running(store)
    path = directory / f"{claim.job.id}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "color": {"deep": [1]}}))
    store.update(claim, record.with_progress(claim.job, ["a"], 1.0))
    store.update(claim, record.with_progress(claim.job, ["b"], 2.0))
    assert json.loads(path.read_text())["color"] == {"deep": [1]}
    store.release(claim)
    assert other.settle(claim.job.id).status is JobStatus.FAILED
    assert json.loads(path.read_text())["color"] == {"deep": [1]}


def test_a_record_that_was_damaged_or_removed_while_its_job_runs_is_written_again(
    store: JobStore, directory: Path
) -> None:
    for damage in (Path.unlink, lambda path: path.write_bytes(b"\0\0")):
        claim = running(store)
        damage(directory / f"{claim.job.id}.json")
        assert end(store, claim).persisted
        assert store.read(claim.job.id).status is JobStatus.DONE


def test_an_answer_is_recorded_although_its_directory_was_removed(
    store: JobStore, directory: Path
) -> None:
    claim = running(store)
    for path in (directory / "live").iterdir():
        path.unlink()
    (directory / "live").rmdir()
    assert end(store, claim).persisted
    assert store.read(claim.job.id).status is JobStatus.DONE


def test_short_writes_make_whole_records(directory: Path) -> None:
    store = JobStore(directory, disk=ShortWrites(1, 1 << 20))
    (directory / "live").mkdir(parents=True)
    (directory / ".reserve").write_bytes(bytes(64 * 1024))
    assert store.read(ended(store)).status is JobStatus.DONE


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o777])
def test_everything_is_private_whatever_the_umask(
    mask: int, store: JobStore, directory: Path
) -> None:
    before = os.umask(mask)
    try:
        claim = running(store)
        store.requests.cancel(claim.job.id, "a test")
        store.mark_ending(claim)
        os.close(store.open_log(claim.job.id))
        ended(store)
        assert store.lister.newest(status=JobStatus.DONE).jobs
    finally:
        os.umask(before)
    assert {path.name for path in directory.rglob("*")} >= {".index", ".reserve", "logs"}
    for path in (directory, *directory.rglob("*")):
        wanted = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.lstat().st_mode) == wanted, path


@pytest.mark.parametrize("job_id", ["../agents", "", "x" * 32, NOBODY.upper(), f"{NOBODY}\n"])
def test_no_file_is_read_for_text_that_cannot_be_an_id(
    job_id: str, store: JobStore, tmp_path: Path
) -> None:
    (tmp_path / "agents.json").write_text("{}")
    for call in (store.read, store.settle, store.is_held, store.watch, store.requests.cancelled_by,
                 store.retention.forget, store.open_log):  # fmt: skip
        with pytest.raises(InvalidJobIdError):
            call(job_id)
    with pytest.raises(InvalidJobIdError):
        store.requests.cancel(job_id, "a test")
    with pytest.raises(InvalidJobIdError):
        store.adopt(job_id, [])


def test_an_unknown_job_is_an_error_and_leaves_no_file(store: JobStore, directory: Path) -> None:
    for call in (store.read, store.settle, store.retention.forget):
        with pytest.raises(UnknownJobError, match="Unknown job") as unknown:
            call(NOBODY)
        assert [step.kind for step in unknown.value.next_steps] == [StepKind.LIST_JOBS]
    with pytest.raises(UnknownJobError):
        store.requests.cancel(NOBODY, "a test")
    assert store.watch(NOBODY) is None
    assert not store.is_held(NOBODY)
    assert not directory.exists()


def make_symlink(path: Path) -> None:
    path.with_name("elsewhere").write_text('{"id": "x"}')
    path.symlink_to(path.with_name("elsewhere"))


def make_huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (make_symlink, "symbolic link"),
        (lambda path: path.mkdir(), "Is a directory"),
        (lambda path: os.mkfifo(path), "not a regular file"),
        (lambda path: path.write_bytes(b""), "not JSON"),
        (lambda path: path.write_bytes(b'{"summary":{"id":'), "not JSON"),
        (make_huge, "too large"),
    ],
    ids=["symlink", "directory", "fifo", "empty", "torn", "huge"],
)
def test_a_broken_record_is_reported_and_left_alone(
    make: Callable[[Path], object], reason: str, store: JobStore, directory: Path
) -> None:
    good = ended(store)
    path = directory / f"{NOBODY}.json"
    make(path)
    before = path.lstat()
    with pytest.raises(BrokenJobError, match=reason):
        store.read(NOBODY)
    with pytest.raises(BrokenJobError, match=reason):
        store.settle(NOBODY)
    listing = store.lister.newest()
    assert [job.id for job in listing.jobs] == [good]
    assert any(NOBODY in warning and reason in warning for warning in listing.warnings)
    collected = store.retention.collect(0)
    assert collected.purged == [good]
    assert any(reason in warning for warning in collected.warnings)
    after = path.lstat()
    assert (before.st_ino, before.st_size) == (after.st_ino, after.st_size)


def test_adopting_a_foreign_descriptor_is_refused_and_closes_it(store: JobStore) -> None:
    claim = pending(store)
    read, write = os.pipe()
    os.close(write)
    for fds in ([read], [], [os.dup(0), os.dup(0)], [10_000]):
        with pytest.raises(JobStoreError, match="cannot be taken over"):
            store.adopt(claim.job.id, fds)
        for fd in fds:
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(fd)
    assert store.is_held(claim.job.id)


def test_an_adopted_job_keeps_its_descriptors_to_itself(store: JobStore, other: JobStore) -> None:
    claim = pending(store)
    copies = [os.dup(fd) for fd in claim.fds.to_hand_over]
    for fd in copies:
        os.set_inheritable(fd, True)
    adopted = other.adopt(claim.job.id, copies)
    store.release(claim)
    store.release(claim)
    assert claim.fds == NO_DESCRIPTORS
    assert not any(os.get_inheritable(fd) for fd in adopted.fds)
    assert store.settle(claim.job.id).status is JobStatus.PENDING
    other.update(adopted, record.started(adopted.job, 1.0))
    assert end(other, adopted).persisted
    assert store.settle(claim.job.id).status is JobStatus.DONE


def test_an_ended_job_cannot_be_adopted(store: JobStore, other: JobStore) -> None:
    claim = running(store)
    copies = [os.dup(fd) for fd in claim.fds.to_hand_over]
    end(store, claim, tree_ended=False)
    with pytest.raises(JobOverError):
        other.adopt(claim.job.id, copies)


def test_a_log_is_private_and_removed_with_its_record(store: JobStore, directory: Path) -> None:
    job_id = ended(store)
    for text in (b"one\n", b"two\n"):
        log = store.open_log(job_id)
        assert not os.get_inheritable(log)
        os.write(log, text)
        os.close(log)
    assert (directory / "logs" / f"{job_id}.log").read_text() == "one\ntwo\n"
    store.retention.forget(job_id)
    assert files_in(directory) == set()


@pytest.mark.parametrize("where", ["jobs", "jobs/live"])
def test_a_file_in_the_place_of_the_directory_is_an_error_that_names_the_way_out(
    where: str, tmp_path: Path, store: JobStore
) -> None:
    (tmp_path / where).parent.mkdir(exist_ok=True)
    (tmp_path / where).write_text("not a directory")
    with pytest.raises(JobStoreError, match="AGENT_DISPATCH_JOBS_DIR") as caught:
        pending(store)
    assert "nothing was started" in str(caught.value)
    assert (tmp_path / where).read_text() == "not a directory"


def test_errors_are_all_for_the_caller() -> None:
    for error in (InvalidJobIdError("x"), UnknownJobError("x"), BrokenJobError("x", "p", "r"),
                  JobStoreError("x"), JobOverError("x", "done")):  # fmt: skip
        assert isinstance(error, DispatchError)


def test_a_large_answer_comes_back_whole(store: JobStore) -> None:
    text = 'ä\n"' * 2_000_000
    job_id = ended(store, DispatchResult(agent="infra", success=True, result=text))
    job = store.read(job_id)
    assert job.result is not None
    assert job.result.result == text
