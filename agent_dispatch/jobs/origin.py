"""Where jobs come from: the session of the client that asked for them, and a directory."""

import os
from collections.abc import Mapping
from contextvars import ContextVar

from agent_dispatch.model.job import Job, JobSummary

SESSION_VARIABLE = "CLAUDE_CODE_SESSION_ID"
"""Claude Code names its session to the servers and commands that it starts."""
MAX_CHARS = 1000
"""Of a session or directory; longer ones are cut in a record."""

REQUEST_SESSION: ContextVar[str | None] = ContextVar("REQUEST_SESSION", default=None)
"""The session that the current request names; without one, that of the environment."""


class Origin:
    """The client and directory of this process, which its jobs are recorded with."""

    def __init__(self, environ: Mapping[str, str], directory: str | None = None) -> None:
        """Take the session from `environ`; None: the directory that the process is in."""
        self._session = environ.get(SESSION_VARIABLE) or None
        self._directory = _current_directory() if directory is None else directory

    def fields(self) -> dict[str, object]:
        """The fields of a new job."""
        return {
            "client_session": _cut(REQUEST_SESSION.get() or self._session),
            "started_from": _cut(self._directory),
        }

    def inherit(self, job: Job) -> None:
        """Record further jobs as those of the client that asked for this one."""
        self._session, self._directory = job.client_session, job.started_from

    def is_mine(self, job: JobSummary) -> bool:
        """Whether a job is of this client's session, or else was started from this directory."""
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
