"""Who keeps the record of work while it goes."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from agent_dispatch.model.dispatch import DispatchResult

CancelledBy = Callable[[str], DispatchResult]
"""Says what work came to that was cancelled, given by whom."""


class Keeper(Protocol):
    """Who keeps the record of a run while it goes; none of it waits, none of it raises."""

    @property
    def held_fds(self) -> Sequence[int]:
        """Descriptors for the guard to keep open until no process of the run is left."""
        ...

    @property
    def environ(self) -> Mapping[str, str]:
        """What the agent's environment gets besides."""
        ...

    def started(self) -> None:
        """The agent has its slot and is about to be started."""
        ...

    def note_session(self, session_id: str) -> None:
        """There is a conversation to resume, should the run be lost."""
        ...

    def ending(self) -> None:
        """Processes of the run are about to be ended, by us or by the guard."""
        ...

    def interrupted(self, result: CancelledBy) -> None:
        """The run was cancelled from outside and came to `result`; `Cancelled` is on its way."""
        ...

    def tree_left(self) -> None:
        """The run is over, but the guard is still ending processes of it."""
        ...


class NoKeeper:
    """Keeps nothing."""

    held_fds: Sequence[int] = ()
    environ: Mapping[str, str] = MappingProxyType({})

    def started(self) -> None:
        """Do nothing."""

    def note_session(self, session_id: str) -> None:
        """Do nothing."""

    def ending(self) -> None:
        """Do nothing."""

    def interrupted(self, result: CancelledBy) -> None:
        """Do nothing."""

    def tree_left(self) -> None:
        """Do nothing."""
