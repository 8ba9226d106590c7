"""Calls that wait for an agent, and the answers that their callers did not wait for.

When a client cancels a call because its own time limit passed, the work goes on. The next identical
call joins it, or gets its answer once, up to an hour after its end. Any other cancellation ends the
work.
"""

import logging
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

import trio

from agent_dispatch.errors import DispatchError
from agent_dispatch.model.dispatch import DispatchResult, ErrorType, OnProgress, Progress
from agent_dispatch.run.service import Service
from agent_dispatch.server.calls.caller import Caller, KeptAnswer, TaskMode

logger = logging.getLogger(__name__)

KEPT_S = 3600.0
"""How long an answer is kept for the next identical call."""
MAX_KEPT = 256
"""How many answers are kept; each can still be fetched by the id of its job."""

Work = Callable[[OnProgress], Awaitable[object]]
"""Does what a call asks for; if cancelled, it ends everything that it started."""


@dataclass(frozen=True, slots=True)
class InBackground:
    """The answer to a call whose work goes on as a background job."""

    job_id: str


@dataclass(frozen=True, slots=True)
class _Wait:
    """How to reach a caller that waits."""

    on_progress: OnProgress
    scope: trio.CancelScope
    """Around the wait; cancelling it answers the caller early."""


@dataclass(eq=False)
class _SharedWork:
    """One piece of work and the callers that wait for it."""

    detached: bool
    """It is a background job in another process, which goes on unless it is cancelled."""
    waits: dict[Caller, _Wait] = field(default_factory=dict)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    ended: trio.Event = field(default_factory=trio.Event)
    answer: object = None
    failure: Exception | None = None
    job_ids: dict[str, None] = field(default_factory=dict)
    """The jobs that it started or joined, in order."""
    has_job: trio.Event = field(default_factory=trio.Event)
    is_abandoned: bool = False
    """All callers timed out, so the records of its jobs are kept."""
    is_named: bool = False
    """A caller was answered with the id of the job: only cancelling the job ends it."""

    @property
    def job_id(self) -> str:
        """The first of its jobs, which answers name."""
        return next(iter(self.job_ids))

    @property
    def can_be_joined(self) -> bool:
        """Whether it goes on and all callers timed out; the last may not have noticed it yet."""
        all_timed_out = all(caller.timed_out for caller in self.waits)
        return all_timed_out and not self.scope.cancel_called

    def to_keep(self, key: bytes) -> KeptAnswer:
        """Return its answer for the next identical call."""
        job_id = self.job_id if self.job_ids else None
        return KeptAnswer(key, self.answer, job_id, trio.current_time())


class PendingCalls:
    """The calls of one server that wait for agents, and the answers that it keeps."""

    def __init__(self, nursery: trio.Nursery, service: Service | DispatchError) -> None:
        """Run the work in `nursery`, on the jobs of `service`."""
        self.nursery = nursery
        """For work that outlives a call; cancelled when the server ends."""
        self._service = service
        self._shared: dict[bytes, _SharedWork] = {}
        """The newest work for each key."""
        self._kept: OrderedDict[bytes, KeptAnswer] = OrderedDict()

    async def wait(
        self,
        key: bytes,
        work: Work,
        on_progress: OnProgress,
        caller: Caller,
        *,
        detached: bool = False,
        due_at: float = math.inf,
    ) -> object:
        """Do the work of a call, or join it, and return the answer.

        If cancelled, the work has ended when `Cancelled` leaves this call, unless the caller timed
        out or another caller waits for the same work. A detached job goes on if there was no cancel
        notice: then the server ends.

        Args:
            key: The same for identical calls.
            work: Does the work; not called if the work goes on already.
            on_progress: Gets the reports of the work.
            caller: The caller; knows, after a cancellation, whether it timed out.
            detached: The work is a background job, which `work` only starts and waits for.
            due_at: When an answer is due, on Trio's clock; only for detached work.

        Returns:
            The answer; `InBackground` if the work goes on.

        Raises:
            DispatchError: Whatever `work` raised.
        """
        if (kept := self._take_kept(key)) is not None:
            if caller.task_mode is TaskMode.ALWAYS and kept.job_id is not None:
                return InBackground(kept.job_id)
            return kept.answer
        shared = self._join_or_start(key, work, on_progress, detached=detached)
        scope = trio.CancelScope(deadline=due_at)
        shared.waits[caller] = _Wait(on_progress, scope)
        try:
            with scope:
                await shared.ended.wait()
            if not shared.ended.is_set():
                await shared.has_job.wait()
        except trio.Cancelled:
            # `_leave` is shielded, and a cancelled run ends within a bounded time.
            await self._leave(key, shared, caller)  # noqa: ASYNC102
            raise
        del shared.waits[caller]
        if shared.failure is not None:
            raise shared.failure
        goes_on = not shared.ended.is_set()
        if goes_on or (caller.task_mode is TaskMode.ALWAYS and shared.job_ids):
            shared.is_named = True
            return InBackground(shared.job_id)
        caller.given = shared.to_keep(key)
        if caller.timed_out:
            self.take_back(caller)
        return shared.answer

    def take_back(self, caller: Caller) -> None:
        """Keep the answer of a caller that timed out while the answer was on its way."""
        if caller.given is not None:
            self._keep(caller.given)

    def _join_or_start(
        self, key: bytes, work: Work, on_progress: OnProgress, *, detached: bool
    ) -> _SharedWork:
        shared = self._shared.get(key)
        if shared is None or not shared.can_be_joined or shared.detached is not detached:
            shared = self._shared[key] = _SharedWork(detached)
            self.nursery.start_soon(self._run, key, shared, work)
        elif shared.job_ids:
            text = f"Joining the same call, made before: job {shared.job_id[-8:]}"
            on_progress(Progress(text, shared.job_id))
        return shared

    async def _leave(self, key: bytes, shared: _SharedWork, caller: Caller) -> None:
        """Remove a caller whose wait was cancelled, and end the work if nobody else needs it."""
        with trio.CancelScope(shield=True):
            # The MCP library cancels a call first and reports the notice right after it.
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
            del shared.waits[caller]
            if shared.waits or shared.is_named:
                return
            if not caller.timed_out:
                await self._end(shared, caller)
            elif shared.ended.is_set():
                self._keep(shared.to_keep(key))
            else:
                shared.is_abandoned = True
                for job_id in shared.job_ids:
                    self._keep_record(job_id)

    async def _end(self, shared: _SharedWork, caller: Caller) -> None:
        """End the work; without a cancel notice, a detached job goes on."""
        shared.scope.cancel()
        await shared.ended.wait()
        if not shared.detached or caller.cancel_reason is None or not shared.job_ids:
            return
        others_wait = any(shared.job_id in other.job_ids for other in self._shared.values())
        if not others_wait and not isinstance(self._service, DispatchError):
            # `cancel` takes a bounded time.
            await self._service.jobs.cancel(shared.job_id, by="its caller")

    def _keep_record(self, job_id: str) -> None:
        if not isinstance(self._service, DispatchError):
            self._service.keep_record(job_id)

    async def _run(self, key: bytes, shared: _SharedWork, work: Work) -> None:
        try:
            with shared.scope:
                shared.answer = await work(partial(self._report, shared))
        except Exception as error:
            shared.failure = error
            if not shared.waits and not isinstance(error, DispatchError):
                logger.exception("bug in agent-dispatch: a call that nobody waits for failed")
        except BaseExceptionGroup as group:
            # A nursery that was cancelled while something in it failed.
            _, bugs = group.split(trio.Cancelled)
            logger.error("bug in agent-dispatch: a cancelled call failed", exc_info=bugs)
            # A cancellation outranks the failures beside it, which have been logged.
            await trio.lowlevel.checkpoint_if_cancelled()  # noqa: ASYNC120
            raise
        finally:
            if self._shared.get(key) is shared:
                del self._shared[key]
            if not shared.waits and not shared.is_named:
                self._keep(shared.to_keep(key))
            shared.has_job.set()
            shared.ended.set()

    def _report(self, shared: _SharedWork, progress: Progress) -> None:
        """Pass a report on to all callers; answer those whose user must see a question."""
        if progress.job_id is not None and progress.job_id not in shared.job_ids:
            shared.job_ids[progress.job_id] = None
            shared.has_job.set()
            if shared.is_abandoned:
                self._keep_record(progress.job_id)
        for caller, wait in shared.waits.items():
            wait.on_progress(progress)
            if caller.show_questions is not None:
                caller.show_questions(progress)
            if shared.detached and caller.must_see(progress.questions or ()):
                # Clients show the question only once the call is answered.
                wait.scope.cancel()

    def _keep(self, kept: KeptAnswer) -> None:
        """Keep an answer for the next identical call."""
        if kept.answer is None or _is_cancelled(kept.answer):
            return
        self._kept[kept.key] = kept
        self._kept.move_to_end(kept.key)
        if len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)

    def _take_kept(self, key: bytes) -> KeptAnswer | None:
        """Return a kept answer, which is given only once; drop those that are too old."""
        oldest = trio.current_time() - KEPT_S
        while self._kept and next(iter(self._kept.values())).at < oldest:
            self._kept.popitem(last=False)
        return self._kept.pop(key, None)


def _is_cancelled(answer: object) -> bool:
    """Whether the work was ended on purpose, so that the same call must do it anew."""
    return isinstance(answer, DispatchResult) and answer.error_type is ErrorType.CANCELLED
