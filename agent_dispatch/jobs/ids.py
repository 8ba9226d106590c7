"""Ids of jobs: UUIDs of version 7 (RFC 9562) as 32 hex digits, which sort by time of creation."""

import os
import re
import threading
import time
from collections.abc import Callable

from agent_dispatch.jobs.errors import InvalidJobIdError

JOB_ID = r"[0-9a-f]{32}"
TIME_ORDERED_ID = r"0[0-9a-f]{11}7[0-9a-f]{3}[89ab][0-9a-f]{15}"
"""Version 7 with a time before the year 2527, which random ids hardly ever have."""

_FRACTION_BITS = 12
_RANDOM_BITS = 62


def is_job_id(text: str) -> bool:
    """Whether `text` is 32 hex digits in lower case."""
    return re.fullmatch(JOB_ID, text) is not None


def check_job_id(text: str) -> str:
    """Return `text` if it can be an id. To be called before `text` becomes part of a path.

    Raises:
        InvalidJobIdError: It cannot be an id.
    """
    if not is_job_id(text):
        raise InvalidJobIdError(text)
    return text


def is_time_ordered(job_id: str) -> bool:
    """Whether an id sorts by its time of creation; ids of other programs may not."""
    return re.fullmatch(TIME_ORDERED_ID, job_id) is not None


def creation_time_s(job_id: str) -> float:
    """The time in a time-ordered id, in seconds since the epoch."""
    return int(job_id[:12], 16) / 1000


class IdSource:
    """Makes ids that always increase, even if the clock stands still or goes back.

    Safe to use from several threads.
    """

    def __init__(
        self,
        now_ns: Callable[[], int] = time.time_ns,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """Use a clock (nanoseconds since the epoch) and a source of random bytes."""
        self._now_ns = now_ns
        self._random_bytes = random_bytes
        self._lock = threading.Lock()
        self._last_ticks = 0

    def next(self) -> str:
        """Make an id greater than all before it."""
        with self._lock:
            # A tick is 1/4096 ms: 48 bits of milliseconds and the 12 bits after the version.
            ticks = (self._now_ns() << _FRACTION_BITS) // 1_000_000
            self._last_ticks = ticks = max(ticks, self._last_ticks + 1)
        milliseconds, fraction = divmod(ticks, 1 << _FRACTION_BITS)
        random_part = int.from_bytes(self._random_bytes(8)) >> (64 - _RANDOM_BITS)
        return f"{milliseconds:012x}7{fraction:03x}{0b10 << _RANDOM_BITS | random_part:016x}"
