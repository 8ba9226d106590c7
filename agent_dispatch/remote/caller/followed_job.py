"""Decides what to send about one job after a cut, and how long to try. No I/O, no event loop.

The submission is repeated until the host is known to have accepted it; the host takes each id only
once. From then on the caller attaches, and asks for the events after the last one that it saw.
"""

import math

import msgspec

from agent_dispatch.remote.frames import Attach, Submit

FIRST_CONTACT_S = 30.0
"""How long to try a host that has not been reached yet."""


class FollowedJob:
    """One job as its caller follows it, through any number of cuts.

    `next_frame` returns what to send on a new link. The caller reports what arrives with
    `accepted` and `is_new_event`; all of it may arrive more than once.
    """

    def __init__(self, submit: Submit | None, job_id: str, now: float, patience_s: float) -> None:
        """Follow a job.

        Args:
            submit: What to submit first; None for a job that the host already has.
            job_id: The job.
            now: Monotonic seconds.
            patience_s: How long to try again after a cut, once the host was reached.
        """
        self._submit = submit
        self.job_id = job_id
        self.was_sent = False
        """Whether a link took a frame about the job. If not, the host cannot have it from us."""
        self.is_accepted = submit is None
        """Whether the host is known to own the job."""
        self._last_event = 0
        self._patience_s = patience_s
        self._cut_since: float | None = now
        """Since when there is no link; None while there is one."""

    def next_frame(self, n: int) -> Submit | Attach:
        """Return what to send on a link that is up."""
        self.was_sent, self._cut_since = True, None
        if self._submit is not None and not self.is_accepted:
            return msgspec.structs.replace(self._submit, n=n)
        return Attach(n=n, id=self.job_id, after=self._last_event, lease_s=self.lease_s)

    def accepted(self) -> None:
        """The host has accepted the job."""
        self.is_accepted = True

    def is_new_event(self, seq: int) -> bool:
        """Return whether this event was not seen before, and remember it."""
        if seq <= self._last_event:
            return False
        self._last_event = seq
        return True

    def cut(self, now: float) -> None:
        """The link is gone."""
        if self._cut_since is None:
            self._cut_since = now

    @property
    def is_background(self) -> bool:
        """Whether the job is only submitted, and not followed to its end."""
        return self._submit is not None and self._submit.kind != "call"

    @property
    def lease_s(self) -> float:
        """How long the job goes on without its caller; 0 for no limit."""
        return 0 if self._submit is None else self._submit.lease_s

    @property
    def gives_up_at(self) -> float:
        """When to stop trying; infinity while there is a link."""
        if self._cut_since is None:
            return math.inf
        return self._cut_since + (self._patience_s if self.was_sent else FIRST_CONTACT_S)
