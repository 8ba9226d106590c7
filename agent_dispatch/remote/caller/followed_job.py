"""Decides what to send about one job after a cut, and how long to try. No I/O, no event loop.

The submission is repeated until the host is known to have accepted it; the host takes each id only
once. From then on the caller attaches, and asks for the events after the last one that it saw.
"""

import math
from enum import Enum, auto

import msgspec

from agent_dispatch.remote.frames import Attach, Submit

FIRST_CONTACT_S = 30.0
"""How long to try a host that has not been reached yet."""


class Stage(Enum):
    """What a caller knows of its job."""

    NOTED = auto()
    """Nothing was sent, so the host cannot have it."""
    SUBMITTING = auto()
    """It was sent, but the host may not have received it."""
    ACCEPTED = auto()
    """The host owns it."""
    ENDED = auto()


class FollowedJob:
    """One job as its caller follows it, through any number of cuts.

    `next_frame` returns what to send on a new link. The caller reports what arrives with
    `accepted`, `is_new_event` and `ended`; all of it may arrive more than once.
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
        self.stage = Stage.NOTED if submit is not None else Stage.ACCEPTED
        self._last_event = 0
        self._patience_s = patience_s
        self._was_reached = False
        self._cut_since: float | None = now
        """Since when there is no link; None while there is one."""

    def next_frame(self, n: int) -> Submit | Attach:
        """Return what to send on a link that is up."""
        self._was_reached, self._cut_since = True, None
        if self._submit is not None and self.stage in (Stage.NOTED, Stage.SUBMITTING):
            self.stage = Stage.SUBMITTING
            return msgspec.structs.replace(self._submit, n=n)
        return Attach(n=n, id=self.job_id, after=self._last_event, lease_s=self.lease_s)

    def accepted(self) -> None:
        """The host has accepted the job."""
        if self.stage is not Stage.ENDED:
            self.stage = Stage.ACCEPTED

    def is_new_event(self, seq: int) -> bool:
        """Return whether this event was not seen before, and remember it."""
        if seq <= self._last_event:
            return False
        self._last_event = seq
        return True

    def ended(self) -> None:
        """The end of the job arrived."""
        self.stage = Stage.ENDED

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
        return self._cut_since + (self._patience_s if self._was_reached else FIRST_CONTACT_S)
