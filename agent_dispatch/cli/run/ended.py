"""The result of a call in the foreground, also when a signal ended it."""

import signal
from collections.abc import Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

import msgspec

from agent_dispatch.core.dialogue.record import dialogue_from_result
from agent_dispatch.model.dialogue import DialogueResult
from agent_dispatch.model.dispatch import DispatchResult, ErrorType, Member
from agent_dispatch.model.parallel import ParallelResult

T = TypeVar("T")


class Ended(NamedTuple, Generic[T]):
    """How a call ended."""

    value: T | None
    """Its result; None if a signal ended it."""
    signum: signal.Signals | None = None
    """The signal that ended it; None if it ended by itself."""
    recorded: Mapping[int | None, DispatchResult] = {}
    """After a signal: the results in the records of its jobs, by member."""

    def recorded_result(self, member: int | None, agent: str) -> DispatchResult:
        """The recorded result of one dispatch of a call that a signal ended."""
        name = self.signum.name if self.signum is not None else "a signal"
        result = self.recorded.get(member)
        if result is None:
            return DispatchResult(
                agent=agent,
                success=False,
                result="",
                error=f"Cancelled by {name}; the agent's processes have been ended.",
                error_type=ErrorType.CANCELLED,
            )
        if result.error_type is not ErrorType.CANCELLED:
            return result  # It had ended before.
        return msgspec.structs.replace(result, error=f"Cancelled by {name}.")


def dispatch_result(ended: Ended[DispatchResult], agent: str) -> DispatchResult:
    """The result; after a signal the recorded one, with the session to resume."""
    return ended.value or ended.recorded_result(None, agent)


def parallel_result(
    ended: Ended[ParallelResult], members: Sequence[Member], aggregate: str
) -> ParallelResult:
    """All results; after a signal the recorded ones, and `cancelled` for the others."""
    if ended.value is not None:
        return ended.value
    return ParallelResult(
        individual_results=[
            ended.recorded_result(index, member.request.agent)
            for index, member in enumerate(members)
        ],
        aggregated=ended.recorded_result(len(members), aggregate) if aggregate else None,
    )


def dialogue_result(ended: Ended[DialogueResult], responder: str) -> DialogueResult:
    """The result; after a signal what the agents had said until then."""
    return ended.value or dialogue_from_result(ended.recorded_result(None, responder))
