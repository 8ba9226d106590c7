"""How long a run may take; it can be moved while the run goes."""

from collections.abc import Callable

import trio


def _nothing() -> None:
    """Do nothing."""


class TimeLimit:
    """The limit of one run, which counts from the start of its agent, not from its place in line.

    Whoever runs the agent does so inside `scope`, having called `begin`.
    """

    def __init__(self, timeout_s: float, on_begin: Callable[[], object] = _nothing) -> None:
        """Allow `timeout_s` seconds; call `on_begin` when they begin."""
        self.scope = trio.CancelScope()
        self.has_begun = False
        self._timeout_s = timeout_s
        self._on_begin = on_begin

    @property
    def timeout_s(self) -> float:
        """Seconds from the start to the limit, as it is now."""
        return self._timeout_s

    @property
    def has_passed(self) -> bool:
        """The run was told to end."""
        return self.scope.cancel_called

    def begin(self) -> None:
        """Let the seconds count."""
        self.has_begun = True
        self._began = trio.current_time()
        self.scope.deadline = self._began + self._timeout_s
        # Let go of: who holds us and is called by us would outlive its use, and its answer with it.
        on_begin, self._on_begin = self._on_begin, _nothing
        on_begin()

    def move_to(self, deadline: float) -> None:
        """Have the limit at this time of Trio's clock; only once it has begun."""
        self._timeout_s = deadline - self._began
        self.scope.deadline = deadline
