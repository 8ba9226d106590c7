"""A caller's records of its jobs on other hosts: where each is, and what was last known of it.

A record is durable before its job is sent, so the job can be found whatever happens to this
process. It is not the job's own record: only the host that owns a job says how it ended, or that it
is lost. The answer stays on the host.
"""

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import msgspec

from agent_dispatch.errors import NOT_JSON
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
"""Marks a job whose cost is in the ledger of this machine."""
_MAX_BYTES = 4 * 1024 * 1024
_ID_AT_HOST = re.compile(rf"({JOB_ID})@([A-Za-z0-9_.-]+)")
_DAY_S = 86_400.0


class RemoteJob(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One job on another host."""

    id: str
    host: str
    agent: str
    """The name on this machine."""
    noted_at: float
    """Seconds since the epoch."""
    job: Job
    """The job as last known, without its answer. Ids and names are those of the host."""
    is_withdrawn: bool = False
    """It did not arrive, and will not be sent."""
    unreachable_since: float | None = None
    """Since when its host cannot be reached; seconds since the epoch."""

    @property
    def shown_id(self) -> str:
        """The id as callers here read it."""
        return at_host(self.id, self.host)


def at_host(job_id: str, host: str) -> str:
    """Return the id of a job on a host as callers here read it."""
    return f"{job_id}@{host}"


def split_id(text: str) -> tuple[str, str | None]:
    """Split `ID@HOST`. The host is None if there is none."""
    found = _ID_AT_HOST.fullmatch(text)
    return (text, None) if found is None else (found[1], found[2])


class RemoteJobs:
    """The remote jobs of one jobs directory. All methods block."""

    def __init__(self, jobs: str) -> None:
        """Use the folder `remote/notes` of the directory `jobs`."""
        self._directory = os.path.join(jobs, FOLDER, "notes")

    def _path(self, job_id: str) -> str:
        return os.path.join(self._directory, job_id + _SUFFIX)

    def create(self, known: RemoteJob) -> None:
        """Write a new record, durably.

        Raises:
            JobStoreError: It cannot be written, so the job must not be sent.
        """
        try:
            make_private_directory(self._directory)
            write_new(self._path(known.id), msgspec.json.encode(known))
        except OSError as error:
            raise JobStoreError(
                f"The job cannot be recorded, so it was not sent: {error.strerror}"
                f" ({self._directory})."
            ) from error

    def read(self, job_id: str) -> RemoteJob | None:
        """Return the record of a job, or None."""
        if not is_job_id(job_id):
            return None
        with suppress(OSError, *NOT_JSON):
            content, _ = read_regular(self._path(job_id), _MAX_BYTES)
            return msgspec.json.decode(content, type=RemoteJob)
        return None

    def update(self, job_id: str, job: Job) -> None:
        """Save a job as its host has it now. Best effort: the host can be asked again."""
        if (known := self.read(job_id)) is not None:
            updated = msgspec.structs.replace(
                job,
                result=_without_text(job),
                # The host has other names for the caller.
                client_session=known.job.client_session,
                started_from=known.job.started_from,
            )
            self._write(msgspec.structs.replace(known, job=updated, unreachable_since=None))

    def mark_unreachable(self, job_id: str) -> RemoteJob | None:
        """Save that the host of a job cannot be reached; return the record."""
        known = self.read(job_id)
        if known is None or known.unreachable_since is not None:
            return known
        known = msgspec.structs.replace(known, unreachable_since=time.time())
        self._write(known)
        return known

    def withdraw(self, job_id: str, error: str) -> None:
        """Save that a job was not sent or did not arrive, and why."""
        if (known := self.read(job_id)) is not None:
            job = msgspec.structs.replace(
                known.job,
                status=JobStatus.CANCELLED,
                completed_at=time.time(),
                error=error,
                error_type=ErrorType.UNREACHABLE,
            )
            self._write(msgspec.structs.replace(known, job=job, is_withdrawn=True))

    def claim_entry(self, job_id: str) -> bool:
        """Return True once for each job: this process enters its cost and reports its end."""
        try:
            write_new(self._path(job_id) + _ENTERED, b"", durable=False)
        except OSError:
            return False
        return True

    def remove(self, job_id: str) -> None:
        """Forget a job that its host does not have."""
        remove_quietly(self._path(job_id))

    def _write(self, known: RemoteJob) -> None:
        with suppress(OSError):
            replace_durably(self._path(known.id), msgspec.json.encode(known))

    def ids(self) -> list[str]:
        """Return all ids, the newest first."""
        names = (name.removesuffix(_SUFFIX) for name in names_in(self._directory))
        return sorted(filter(is_job_id, names), reverse=True)

    def all(self) -> Iterator[RemoteJob]:
        """Yield all records, the newest first."""
        for job_id in self.ids():
            if (known := self.read(job_id)) is not None:
                yield known

    def of_session(self, session_id: str) -> RemoteJob | None:
        """Return the newest job of a session."""
        wanted = session_id.lower()
        return next((known for known in self.all() if known.job.session_id == wanted), None)

    def clean(self, max_age_days: float) -> list[str]:
        """Forget jobs that ended more than `max_age_days` ago; return their ids."""
        old = time.time() - max_age_days * _DAY_S
        ids = [
            known.id
            for known in self.all()
            if known.job.status.is_terminal and (known.job.completed_at or known.noted_at) <= old
        ]
        for path in map(self._path, ids):
            remove_quietly(path, path + _ENTERED)
        return ids


def with_remote_jobs(
    listing: Listing, remote_jobs: RemoteJobs, limit: int, matches: Callable[[JobSummary], bool]
) -> Listing:
    """Merge the jobs on other hosts, as last known, into a listing."""
    rows = filter(matches, map(_summary_of, remote_jobs.all()))
    merged = sorted([*listing.jobs, *rows], key=lambda row: row.created_at, reverse=True)
    return Listing(merged[:limit], listing.warnings)


def _summary_of(remote: RemoteJob) -> JobSummary:
    """Return the row of a listing."""
    job = msgspec.structs.replace(
        remote.job, id=remote.shown_id, agent=remote.agent, host=remote.host
    )
    return msgspec.structs.replace(summarise(job), unreachable_since=remote.unreachable_since)


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
