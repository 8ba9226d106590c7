"""The time limit of a turn."""

import contextlib
import math
import weakref
from collections.abc import Callable, Iterator

import trio


class TimeLimit:
    """How long a turn may take, counted from its start.

    The limit can be moved while the turn goes on. Its clock is paused while a person is asked
    something.
    """

    def __init__(self, timeout_s: float, on_change: Callable[[], object] | None = None) -> None:
        """Allow `timeout_s` seconds.

        Args:
            on_change: A method to call when the clock starts, is paused, or goes on. It is
                referenced weakly, because its object may hold this one.
        """
        self.scope = trio.CancelScope()
        self.has_begun = False
        self.paused_s = 0.0
        """How long the clock was paused, not counting a pause that goes on."""
        self._timeout_s = timeout_s
        self._on_change = None if on_change is None else weakref.WeakMethod(on_change)
        self._pauses = 0
        self._paused_at = math.inf
        self._began = 0.0
        self._deadline = math.inf

    @property
    def timeout_s(self) -> float:
        """Seconds from the start to the limit, as it is now."""
        return self._timeout_s

    @property
    def left_s(self) -> float:
        """Seconds that are left, once the clock has started."""
        now = self._paused_at if self.is_paused else trio.current_time()
        return max(self._deadline - now, 0.0)

    @property
    def has_passed(self) -> bool:
        """The turn was cancelled at its limit."""
        return self.scope.cancel_called

    def begin(self) -> None:
        """Start the clock."""
        self.has_begun = True
        self._began = trio.current_time()
        self.scope.deadline = self._deadline = self._began + self._timeout_s
        self._changed()

    @property
    def is_paused(self) -> bool:
        """The clock is paused."""
        return self._pauses > 0

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Pause the clock for as long as the block runs; several blocks may overlap."""
        self._pauses += 1
        if self._pauses == 1:
            self._paused_at = trio.current_time()
            self.scope.deadline = math.inf
            self._changed()
        try:
            yield
        finally:
            self._pauses -= 1
            if not self._pauses:
                pause_s = trio.current_time() - self._paused_at
                self.paused_s += pause_s
                self._began += pause_s
                self._deadline += pause_s
                self.scope.deadline = self._deadline
                self._changed()

    def move_to(self, deadline: float) -> None:
        """Set the limit to this time of Trio's clock, which must be running."""
        self._timeout_s = deadline - self._began
        self.scope.deadline = self._deadline = deadline

    def _changed(self) -> None:
        if self._on_change is not None and (on_change := self._on_change()) is not None:
            on_change()
