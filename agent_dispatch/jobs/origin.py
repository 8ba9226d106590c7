"""The origin of jobs: the client's session and the directory that a job was started from."""

import os
from collections.abc import Mapping
from contextvars import ContextVar

from agent_dispatch.model.job import Job, JobSummary

SESSION_VARIABLE = "CLAUDE_CODE_SESSION_ID"
"""Claude Code sets it for the servers and commands that it starts."""
MAX_CHARS = 1000
"""Longest session or directory in a record; longer ones are cut."""

REQUEST_SESSION: ContextVar[str | None] = ContextVar("REQUEST_SESSION", default=None)
"""The session of the current request; None: that of the environment."""


class Origin:
    """The client session and directory of this process, recorded with each of its jobs."""

    def __init__(self, environ: Mapping[str, str], directory: str | None = None) -> None:
        """Take the session from `environ`, and the current directory if `directory` is None."""
        self._session = environ.get(SESSION_VARIABLE) or None
        self._directory = _current_directory() if directory is None else directory

    def fields(self) -> dict[str, object]:
        """The fields of a new job."""
        return {
            "client_session": _cut(REQUEST_SESSION.get() or self._session),
            "started_from": _cut(self._directory),
        }

    def inherit(self, job: Job) -> None:
        """Record further jobs with the origin of this one."""
        self._session, self._directory = job.client_session, job.started_from

    def is_mine(self, job: JobSummary) -> bool:
        """Whether a job has this client's session or, if that is unknown, this directory."""
        mine = self.fields()
        if mine["client_session"] is not None:
            return job.client_session == mine["client_session"]
        return job.started_from is not None and job.started_from == mine["started_from"]


def _current_directory() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # It was removed.
        return None


def _cut(text: str | None) -> str | None:
    return None if text is None else text[:MAX_CHARS]
