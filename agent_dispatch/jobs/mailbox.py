"""The mailbox of a job that has not ended: how other processes talk to its owner.

`live/ID.mail` holds one JSON object per line, in the order in which they were sent. A sender locks
the file, appends a line, makes it durable, and rings the owner's bell. The owner remembers how many
bytes it has read. It answers in the job's record, where the sender waits for the answer or for the
end of the job.

A sender that is killed may leave a line without its end. The next sender ends that line so that it
is not valid JSON.
"""

import errno
import os
import uuid
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from agent_dispatch.errors import NOT_JSON, InvalidRequestError
from agent_dispatch.file_locks import LockHeldError, lock_within
from agent_dispatch.files import (
    NOT_A_FILE,
    Disk,
    open_private,
    opened_regular,
    sync_directory,
    write_all,
)
from agent_dispatch.jobs.errors import JobStoreError

MAX_MAIL_BYTES = 1 << 20
"""Of one message."""
MAX_MAILBOX_BYTES = 64 << 20
_LOCK_S = 5.0
"""How long to wait for other senders; each needs the time of one durable write."""
_SPOIL = b"\0\n"


class Mail(msgspec.Struct, frozen=True, kw_only=True):
    """One message from another process to the owner of a job."""

    id: str
    """The job's record refers to the message by this id."""
    kind: str
    """Which handler of the owner it is for, and so what `body` holds."""
    sent_at: float
    """Seconds since the epoch."""
    body: msgspec.Raw = msgspec.Raw(b"{}")
    """JSON, for the handler of that kind."""


class Delivery(NamedTuple):
    """New messages."""

    mails: Sequence[Mail]
    read_bytes: int
    """Where the next read begins."""


_MAIL: msgspec.json.Decoder[Mail] = msgspec.json.Decoder(Mail)


def new_mail(kind: str, body: object, sent_at: float) -> Mail:
    """Make a message; msgspec encodes `body`.

    Raises:
        InvalidRequestError: It is too large, or holds text that is not Unicode.
    """
    try:
        raw = msgspec.json.encode(body)
    except UnicodeEncodeError:
        raise InvalidRequestError("The message holds bytes that are not text (UTF-8).") from None
    if len(raw) > MAX_MAIL_BYTES:
        raise InvalidRequestError(
            f"The message is too large: {len(raw)} bytes, at most {MAX_MAIL_BYTES}."
        )
    return Mail(id=uuid.uuid4().hex, kind=kind, sent_at=sent_at, body=msgspec.Raw(raw))


def append(path: str, mail: Mail, disk: Disk) -> None:
    """Append a message to a mailbox, durably; the mailbox is made if it is missing.

    Raises:
        JobStoreError: The mailbox is full, or another sender keeps it locked.
        OSError: It cannot be written. Readers ignore a partial line.
    """
    line = msgspec.json.encode(mail) + b"\n"
    try:
        lock = lock_within(path, _LOCK_S, disk)
    except LockHeldError as error:
        raise JobStoreError(
            f"Other processes have kept the mailbox of the job locked for {_LOCK_S:g} s. Try again."
        ) from error
    try:
        fd = open_private(path, os.O_RDWR | os.O_APPEND, disk)
        try:
            size = disk.fstat(fd).st_size
            if size + len(line) > MAX_MAILBOX_BYTES:
                raise JobStoreError("The job has unread messages of 64 MiB; it takes no more.")
            is_torn = size and disk.pread(fd, 1, size - 1) != b"\n"
            write_all(fd, _SPOIL + line if is_torn else line, disk)
            disk.fsync(fd)
        finally:
            disk.close(fd)
        sync_directory(os.path.dirname(path), disk)
    finally:
        disk.close(lock)


def read_new(path: str, read_bytes: int, disk: Disk) -> Delivery:
    """Read the whole lines of a mailbox after the first `read_bytes`; none if it is missing.

    Lines that are not messages are skipped, and so is anything but a regular file: they must not
    end a run.

    Raises:
        OSError: It cannot be read.
    """
    try:
        with opened_regular(path, disk) as (fd, status):
            if status.st_size <= read_bytes:
                return Delivery((), read_bytes)
            content = _read_range(fd, read_bytes, status.st_size, disk)
    except OSError as error:
        if error.errno in (errno.ENOENT, *NOT_A_FILE):
            return Delivery((), read_bytes)
        raise
    # A line without its end may still be being written.
    end = content.rfind(b"\n") + 1
    mails = (_decode(line) for line in content[:end].split(b"\n"))
    return Delivery([mail for mail in mails if mail is not None], read_bytes + end)


def _read_range(fd: int, begin: int, end: int, disk: Disk) -> bytes:
    chunks: list[bytes] = []
    while begin < end and (chunk := disk.pread(fd, min(end - begin, MAX_MAILBOX_BYTES), begin)):
        chunks.append(chunk)
        begin += len(chunk)
    return b"".join(chunks)


def _decode(line: bytes) -> Mail | None:
    try:
        mail = _MAIL.decode(line)
    except NOT_JSON:
        return None
    # Copied, because a Raw keeps the whole buffer in memory.
    return msgspec.structs.replace(mail, body=mail.body.copy())
