"""A virtual clock for code that works in threads."""

import threading

from trio.testing import MockClock

_MOST_WAITS = 40
"""How often one jump waits for threads. A thread that never ends must not stop the clock."""


def clock_beside_threads(threshold_s: float) -> MockClock:
    """Return a virtual clock that does not jump while a thread of Trio works.

    Trio's own clock takes a task that waits for a thread for an idle one. On a busy machine the
    thread may take longer than the threshold, and time would pass that no test asked for.

    Args:
        threshold_s: The real time without anything to do before each jump, in seconds.
    """
    clock = MockClock(autojump_threshold=threshold_s)
    jump = clock._autojump  # The run loop calls it after each idle time.
    waits = 0

    def jump_beside_threads() -> None:
        nonlocal waits
        waits += 1
        if waits <= _MOST_WAITS and any(map(_works_for_trio, threading.enumerate())):
            return
        waits = 0
        jump()

    vars(clock)["_autojump"] = jump_beside_threads
    return clock


def _works_for_trio(thread: threading.Thread) -> bool:
    # `trio.to_thread.run_sync` names a thread "FUNCTION from TASK" while it works.
    return " from " in thread.name
