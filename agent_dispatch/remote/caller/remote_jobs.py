"""What a caller keeps of its jobs on other machines: where each is, and what was last known.

A note is durable before its job is sent, so that the job can be found whatever happens to this
process. It is not a job record: only the host that owns a job says how it ended, or that it is
lost. The answer itself stays on the host.
"""

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import msgspec

from agent_dispatch.files import (
    make_private_directory,
    names_in,
    read_regular,
    remove_quietly,
    replace_durably,
    write_new,
)
from agent_dispatch.jobs.errors import JobStoreError
from agent_dispatch.jobs.ids import JOB_ID, is_job_id
from agent_dispatch.jobs.listing import Listing
from agent_dispatch.jobs.remote_callers import FOLDER
from agent_dispatch.model.dispatch import DispatchResult, ErrorType
from agent_dispatch.model.job import Job, JobStatus, JobSummary, summarise

_SUFFIX = ".json"
_ENTERED = ".entered"
"""Its cost is in the ledger of this machine."""
_MAX_BYTES = 4 * 1024 * 1024
_ID_AT_HOST = re.compile(rf"({JOB_ID})@([A-Za-z0-9_.-]+)")
_DAY_S = 86_400.0


class RemoteJob(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One job on another machine."""

    id: str
    host: str
    agent: str
    """Its name here."""
    noted_at: float
    """Seconds since the epoch."""
    job: Job
    """As it was last known, without its answer; its ids are those of the host."""
    is_withdrawn: bool = False
    """Its host was never reached, and it will not be sent."""
    unreachable_since: float | None = None
    """When its host could not be reached for the first time since; seconds since the epoch."""

    @property
    def shown_id(self) -> str:
        """The id as callers read it."""
        return at_host(self.id, self.host)


def at_host(job_id: str, host: str) -> str:
    """The id of a job on a host, as callers read it."""
    return f"{job_id}@{host}"


def split_id(text: str) -> tuple[str, str | None]:
    """Split `ID@HOST`; None if it names no host."""
    found = _ID_AT_HOST.fullmatch(text)
    return (text, None) if found is None else (found[1], found[2])


class RemoteJobs:
    """The notes of one jobs directory. All of it blocks."""

    def __init__(self, jobs: str) -> None:
        """Use the folder `remote/notes` of the directory `jobs`."""
        self._directory = os.path.join(jobs, FOLDER, "notes")

    def _path(self, job_id: str) -> str:
        return os.path.join(self._directory, job_id + _SUFFIX)

    def create(self, note: RemoteJob) -> None:
        """Write a new note, durably.

        Raises:
            JobStoreError: It cannot be written; the job must not be sent.
        """
        try:
            make_private_directory(self._directory)
            write_new(self._path(note.id), msgspec.json.encode(note))
        except OSError as error:
            raise JobStoreError(
                f"The job cannot be noted, so it was not sent: {error.strerror}"
                f" ({self._directory})."
            ) from error

    def read(self, job_id: str) -> RemoteJob | None:
        """The note of a job; None if there is none."""
        if not is_job_id(job_id):
            return None
        with suppress(OSError, msgspec.DecodeError):
            content, _ = read_regular(self._path(job_id), _MAX_BYTES)
            return msgspec.json.decode(content, type=RemoteJob)
        return None

    def learn(self, job_id: str, job: Job) -> None:
        """Keep what is now known of a job; best effort, as its host knows better."""
        if (note := self.read(job_id)) is not None:
            known = msgspec.structs.replace(
                job,
                result=_without_text(job),
                # The caller as this machine names it; the host uses other names.
                client_session=note.job.client_session,
                started_from=note.job.started_from,
            )
            self._write(msgspec.structs.replace(note, job=known, unreachable_since=None))

    def miss(self, job_id: str) -> RemoteJob | None:
        """Keep that the host of a job cannot be reached; give the note."""
        note = self.read(job_id)
        if note is None or note.unreachable_since is not None:
            return note
        note = msgspec.structs.replace(note, unreachable_since=time.time())
        self._write(note)
        return note

    def withdraw(self, job_id: str, error: str) -> None:
        """Keep that a job was never sent, and why."""
        if (note := self.read(job_id)) is not None:
            job = msgspec.structs.replace(
                note.job,
                status=JobStatus.CANCELLED,
                completed_at=time.time(),
                error=error,
                error_type=ErrorType.UNREACHABLE,
            )
            self._write(msgspec.structs.replace(note, job=job, is_withdrawn=True))

    def claim_entry(self, job_id: str) -> bool:
        """Whether the cost of a job is to be entered by this process: once in all."""
        try:
            write_new(self._path(job_id) + _ENTERED, b"", durable=False)
        except OSError:
            return False
        return True

    def remove(self, job_id: str) -> None:
        """Forget a job that was never sent."""
        remove_quietly(self._path(job_id))

    def _write(self, note: RemoteJob) -> None:
        with suppress(OSError):
            replace_durably(self._path(note.id), msgspec.json.encode(note))

    def ids(self) -> list[str]:
        """The ids of all, the newest first."""
        names = (name.removesuffix(_SUFFIX) for name in names_in(self._directory))
        return sorted(filter(is_job_id, names), reverse=True)

    def all(self) -> Iterator[RemoteJob]:
        """All notes, the newest first."""
        for job_id in self.ids():
            if (note := self.read(job_id)) is not None:
                yield note

    def of_session(self, session_id: str) -> RemoteJob | None:
        """The newest note of a job of this conversation."""
        wanted = session_id.lower()
        return next((note for note in self.all() if note.job.session_id == wanted), None)

    def clean(self, max_age_days: float) -> list[str]:
        """Forget jobs that ended before that; give their ids."""
        old = time.time() - max_age_days * _DAY_S
        ids = [
            note.id
            for note in self.all()
            if note.job.status.is_terminal and (note.job.completed_at or note.noted_at) <= old
        ]
        for path in map(self._path, ids):
            remove_quietly(path, path + _ENTERED)
        return ids


def with_remote_jobs(
    listing: Listing, notes: RemoteJobs, limit: int, matches: Callable[[JobSummary], bool]
) -> Listing:
    """Add what was last known of the jobs elsewhere to a listing; contacts nobody."""
    rows = filter(matches, map(summary_of, notes.all()))
    merged = sorted([*listing.jobs, *rows], key=lambda row: row.created_at, reverse=True)
    return Listing(merged[:limit], listing.warnings)


def summary_of(note: RemoteJob) -> JobSummary:
    """The row of a listing."""
    job = msgspec.structs.replace(note.job, id=note.shown_id, agent=note.agent, host=note.host)
    return msgspec.structs.replace(summarise(job), unreachable_since=note.unreachable_since)


def _without_text(job: Job) -> DispatchResult | None:
    if job.result is None:
        return None
    return msgspec.structs.replace(
        job.result,
        result="",
        parsed_result=msgspec.UNSET,
        earlier_results=None,
        truncated=True if job.result.result else None,
        full_size=len(job.result.result) or None,
    )
