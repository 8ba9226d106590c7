"""What the attended commands do with the service, and what is known when a signal ends them."""

import math
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import msgspec
import trio

from agent_dispatch.cli.run.foreground import Attended
from agent_dispatch.core.dialogue.exchange import dialogue_from_result
from agent_dispatch.errors import DispatchError
from agent_dispatch.model.dialogue import DialogueRequest, DialogueResult
from agent_dispatch.model.dispatch import (
    DispatchRequest,
    DispatchResult,
    ErrorType,
    Member,
    OnProgress,
    Progress,
)
from agent_dispatch.model.parallel import ParallelResult

if TYPE_CHECKING:
    # For type checkers only: it imports what a refused command does not need.
    from agent_dispatch.run.service import Service

_READ_S = 2.0
"""How long to read the records after a signal: less than the process may take to leave."""


class OneDispatch:
    """One task for one agent."""

    def __init__(self, request: DispatchRequest) -> None:
        self._request = request
        self._records = _Records()

    async def work(self, service: "Service", on_progress: OnProgress) -> DispatchResult:
        """Run it."""
        async with self._records.of(service, on_progress) as watched:
            return await service.dispatch(self._request, watched)

    def outcome(self, attended: Attended[DispatchResult]) -> DispatchResult:
        """Its result; after a signal what was recorded of it, with the session to resume."""
        if attended.value is not None:
            return attended.value
        return _ended_by(attended.signum, self._records.result(None), self._request.agent)


class ManyDispatches:
    """Several tasks at once, and perhaps one agent that combines the answers."""

    def __init__(self, members: Sequence[Member], aggregate: str) -> None:
        self._members = members
        self._aggregate = aggregate
        self._records = _Records()

    async def work(self, service: "Service", on_progress: OnProgress) -> ParallelResult:
        """Run them."""
        async with self._records.of(service, on_progress) as watched:
            return await service.parallel(self._members, self._aggregate, watched)

    def outcome(self, attended: Attended[ParallelResult]) -> ParallelResult:
        """All results; after a signal those that had arrived, and what was recorded of others."""
        if attended.value is not None:
            return attended.value
        results = [
            _ended_by(attended.signum, self._records.result(index), member.request.agent)
            for index, member in enumerate(self._members)
        ]
        aggregated = None
        if self._aggregate:
            recorded = self._records.result(len(self._members))
            aggregated = _ended_by(attended.signum, recorded, self._aggregate)
        return ParallelResult(individual_results=results, aggregated=aggregated)


class OneDialogue:
    """Two agents that talk about a topic."""

    def __init__(self, request: DialogueRequest) -> None:
        self._request = request
        self._records = _Records()

    async def work(self, service: "Service", on_progress: OnProgress) -> DialogueResult:
        """Run it."""
        async with self._records.of(service, on_progress) as watched:
            return await service.dialogue(self._request, watched)

    def outcome(self, attended: Attended[DialogueResult]) -> DialogueResult:
        """What came of it; after a signal what was said until then."""
        if attended.value is not None:
            return attended.value
        recorded = self._records.result(None)
        return dialogue_from_result(_ended_by(attended.signum, recorded, self._request.responder))


class _Records:
    """The jobs of a call, and their results when it is cancelled."""

    def __init__(self) -> None:
        self._ids: dict[int | None, str] = {}
        self._results: dict[int | None, DispatchResult] = {}

    @asynccontextmanager
    async def of(self, service: "Service", on_progress: OnProgress) -> AsyncIterator[OnProgress]:
        """Take note of the jobs that progress names; read their records when it is cancelled."""

        def note(progress: Progress) -> None:
            if progress.job_id is not None:
                self._ids[progress.member] = progress.job_id
            on_progress(progress)

        try:
            yield note
        finally:
            if trio.current_effective_deadline() == -math.inf:
                with trio.move_on_after(_READ_S, shield=True):
                    for member, job_id in self._ids.items():
                        with suppress(DispatchError):
                            self._results[member] = await service.result(job_id)

    def result(self, member: int | None) -> DispatchResult | None:
        """What was recorded of a dispatch that was cut off, if anything was."""
        return self._results.get(member)


def _ended_by(
    signum: signal.Signals | None, recorded: DispatchResult | None, agent: str
) -> DispatchResult:
    name = signum.name if signum is not None else "a signal"
    if recorded is None:
        return DispatchResult(
            agent=agent,
            success=False,
            result="",
            error=f"Cancelled by {name}; the agent's processes have been ended.",
            error_type=ErrorType.CANCELLED,
        )
    if recorded.error_type is not ErrorType.CANCELLED:
        return recorded  # It had ended before.
    return msgspec.structs.replace(recorded, error=f"Cancelled by {name}.")
