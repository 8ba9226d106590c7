"""Messages to the owner of a job: each one arrives whole, once and in order, or is refused."""

import errno
import os
import stat
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from agent_dispatch.errors import DispatchError, InvalidRequestError
from agent_dispatch.jobs.errors import JobStoreError
from agent_dispatch.jobs.mailbox import MAX_MAIL_BYTES, Mail
from agent_dispatch.jobs.owner import adopt_job, create_job
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.jobs.waiting import post, wait_to_see
from agent_dispatch.model.job import Job, JobKind, JobStatus
from tests.jobs.support import (
    DONE,
    REQUEST,
    DyingDisk,
    FaultyDisk,
    RefusingDisk,
    end,
    ended,
    files_in,
    pending,
    running,
)


def mailbox_of(directory: Path, job_id: str) -> Path:
    return directory / "live" / f"{job_id}.mail"


def bodies(store: JobStore, job_id: str, read_bytes: int = 0) -> list[Any]:
    mails = store.requests.read_mail(job_id, read_bytes).mails
    return [msgspec.json.decode(mail.body) for mail in mails]


@pytest.mark.parametrize("state", [pending, running])
def test_a_message_arrives_as_it_was_sent(
    state: Any, store: JobStore, other: JobStore, directory: Path
) -> None:
    claim = state(store)
    sent = other.requests.post(claim.job.id, "message", {"text": "two\nlines"})
    assert sent is not None
    delivery = store.requests.read_mail(claim.job.id, 0)
    assert delivery.mails == [sent]
    assert sent.kind == "message"
    assert msgspec.json.decode(sent.body) == {"text": "two\nlines"}
    mode = stat.S_IMODE(mailbox_of(directory, claim.job.id).stat().st_mode)
    assert mode == 0o600
    assert store.requests.read_mail(claim.job.id, delivery.read_bytes).mails == ()


def test_a_job_without_mail_has_no_mailbox(store: JobStore, directory: Path) -> None:
    claim = pending(store)
    assert store.requests.read_mail(claim.job.id, 0) == ((), 0)
    assert not mailbox_of(directory, claim.job.id).exists()


def test_the_mailbox_is_removed_with_the_job(
    store: JobStore, other: JobStore, directory: Path
) -> None:
    claim = running(store)
    assert other.requests.post(claim.job.id, "message", 1) is not None
    end(store, claim)
    assert files_in(directory) == {f"{claim.job.id}.json"}
    assert other.requests.post(claim.job.id, "message", 2) is None
    assert files_in(directory) == {f"{claim.job.id}.json"}


def test_a_lost_job_takes_no_mail_and_loses_its_mailbox(
    store: JobStore, other: JobStore, directory: Path
) -> None:
    claim = running(store)
    assert other.requests.post(claim.job.id, "message", 1) is not None
    store.release(claim)
    assert other.requests.post(claim.job.id, "message", 2) is None
    assert files_in(directory) == {f"{claim.job.id}.json"}


def test_a_job_that_ends_while_a_message_is_written_keeps_no_mailbox(directory: Path) -> None:
    owner = JobStore(directory)
    claim = running(owner)

    def end_first(name: str, *args: Any) -> int:
        if (
            name == "open"
            and str(args[0]).endswith(".mail")
            and not owner.head(claim.job.id).status.is_terminal
        ):
            end(owner, claim)
        return 0

    assert (
        JobStore(directory, disk=RefusingDisk(end_first)).requests.post(claim.job.id, "message", 1)
        is None
    )
    assert files_in(directory) == {f"{claim.job.id}.json"}


def test_litter_of_a_sender_that_died_is_removed(store: JobStore, directory: Path) -> None:
    job_id = ended(store)
    mailbox_of(directory, job_id).touch()
    assert store.retention.collect(7).litter == 1
    assert files_in(directory) == {f"{job_id}.json"}


@pytest.mark.parametrize(
    "torn", [b'{"id":"a","kind":"message","sent_at":1,"body":', b'{"id":"a"}', b'"a']
)
def test_a_torn_line_costs_only_itself(torn: bytes, store: JobStore, directory: Path) -> None:
    claim = running(store)
    assert store.requests.post(claim.job.id, "message", 1) is not None
    path = mailbox_of(directory, claim.job.id)
    with path.open("ab") as mailbox:
        mailbox.write(torn)
    delivery = store.requests.read_mail(claim.job.id, 0)
    assert len(delivery.mails) == 1
    assert store.requests.post(claim.job.id, "message", 2) is not None
    assert bodies(store, claim.job.id, delivery.read_bytes) == [2]
    assert bodies(store, claim.job.id) == [1, 2]


def test_a_line_without_its_end_is_never_read_even_if_it_is_valid_json(
    store: JobStore, directory: Path
) -> None:
    claim = running(store)
    assert store.requests.post(claim.job.id, "message", 1) is not None
    path = mailbox_of(directory, claim.job.id)
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    assert bodies(store, claim.job.id) == []
    assert store.requests.post(claim.job.id, "message", 2) is not None
    assert bodies(store, claim.job.id) == [2]


def test_a_sender_killed_at_any_call_leaves_a_mailbox_that_works(
    store: JobStore, directory: Path
) -> None:
    claim = running(store)
    for die_at in range(1, 60):
        child = os.fork()
        if not child:
            try:
                JobStore(directory, disk=DyingDisk(die_at)).requests.post(
                    claim.job.id, "message", "dying"
                )
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)
        assert store.requests.post(claim.job.id, "message", die_at) is not None
        heard = [body for body in bodies(store, claim.job.id) if body != "dying"]
        assert heard == list(range(1, die_at + 1))
        if not os.WIFSIGNALED(status):
            return
    pytest.fail("a post takes more calls than were tried")


def test_a_system_call_that_fails_is_an_error_or_harmless(store: JobStore, directory: Path) -> None:
    claim = running(store)
    counting = FaultyDisk()
    JobStore(directory, disk=counting).requests.post(claim.job.id, "message", 0)
    for fail_at in range(1, len(counting.calls) + 1):
        disk = FaultyDisk(fail_at, errno.ENOSPC)
        with suppress(DispatchError):
            JobStore(directory, disk=disk).requests.post(claim.job.id, "message", fail_at)
    assert store.requests.post(claim.job.id, "message", "last") is not None
    assert bodies(store, claim.job.id)[-1] == "last"


@pytest.mark.parametrize(
    "line", [b"\xff\xfe", b"[]", b"{}", b"[" * 100_000, b'{"id":1,"kind":2,"sent_at":3}', b""]
)
def test_lines_that_are_not_messages_are_skipped(
    line: bytes, store: JobStore, directory: Path
) -> None:
    claim = running(store)
    mailbox_of(directory, claim.job.id).write_bytes(line + b"\n")
    assert store.requests.post(claim.job.id, "message", 1) is not None
    assert bodies(store, claim.job.id) == [1]


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: os.symlink("/etc/hosts", path)])
def test_anything_but_a_regular_file_is_ignored_as_a_mailbox(
    make: Any, store: JobStore, directory: Path
) -> None:
    claim = running(store)
    make(mailbox_of(directory, claim.job.id))
    assert store.requests.read_mail(claim.job.id, 0).mails == ()
    with pytest.raises(JobStoreError):
        store.requests.post(claim.job.id, "message", 1)


def test_a_message_that_is_too_large_or_not_unicode_is_refused(
    store: JobStore, directory: Path
) -> None:
    claim = running(store)
    with pytest.raises(InvalidRequestError, match="too large"):
        store.requests.post(claim.job.id, "message", "x" * MAX_MAIL_BYTES)
    with pytest.raises(InvalidRequestError, match="UTF-8"):
        store.requests.post(claim.job.id, "message", "\udcff")
    assert not mailbox_of(directory, claim.job.id).exists()


def test_many_senders_at_once_lose_nothing(store: JobStore, directory: Path) -> None:
    claim = running(store)
    each, senders = 20, 8

    def send(sender: int) -> None:
        own = JobStore(directory)
        for number in range(each):
            assert own.requests.post(claim.job.id, "message", [sender, number]) is not None

    threads = [threading.Thread(target=send, args=[sender]) for sender in range(senders)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    heard = bodies(store, claim.job.id)
    assert len(heard) == each * senders
    for sender in range(senders):
        assert [number for one, number in heard if one == sender] == list(range(each))


# -- on Trio


async def test_the_owner_gets_each_message_once_and_answers_in_the_record(
    store: JobStore, other: JobStore
) -> None:
    async with create_job(store, store.new_job(REQUEST, kind=JobKind.CALL)) as own:
        heard: list[Mail] = []
        own.note_started()

        def hear(mail: Mail) -> None:
            heard.append(mail)
            own.note(session_id=f"heard {len(heard)}")

        def has_heard(count: int) -> Any:
            return lambda job: job.session_id == f"heard {count}"

        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(own.wait_cancelled, hear)
                nursery.start_soon(own.keep_record)
                first = await post(other, own.job.id, "message", 1)
                await wait_to_see(other, own.job.id, has_heard(1))
                second = await post(other, own.job.id, "answer", 2)
                job = await wait_to_see(other, own.job.id, has_heard(2))
                assert not job.status.is_terminal
                nursery.cancel_scope.cancel()
        assert heard == [first, second]
        await own.finish(DONE)


async def test_mail_to_a_pending_job_is_there_for_the_process_that_takes_over(
    store: JobStore, other: JobStore
) -> None:
    heard = list[Mail]()
    arrived = trio.Event()

    def hear(mail: Mail) -> None:
        heard.append(mail)
        arrived.set()

    async with create_job(store, store.new_job(REQUEST, kind=JobKind.BACKGROUND)) as own:
        sent = await post(other, own.job.id, "message", 1)
        fds = [os.dup(fd) for fd in own.fds]
        own.release()
        async with adopt_job(store, own.job.id, fds) as adopted:
            with trio.fail_after(20):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(adopted.wait_cancelled, hear)
                    await arrived.wait()
                    nursery.cancel_scope.cancel()
            await adopted.finish(DONE)
    assert heard == [sent]


async def test_a_sender_that_waits_sees_the_end_of_the_job(
    store: JobStore, other: JobStore
) -> None:
    async with create_job(store, store.new_job(REQUEST, kind=JobKind.CALL)) as own:
        own.note_started()
        assert await post(other, own.job.id, "message", 1) is not None
        seen: list[Job] = []

        async def look() -> None:
            seen.append(await wait_to_see(other, own.job.id, lambda job: False))

        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(look)
                await own.finish(DONE)
        assert [job.status for job in seen] == [JobStatus.DONE]
        assert await post(other, own.job.id, "message", 2) is None
