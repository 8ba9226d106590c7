"""Identical calls share one run, and later ones get its answer from the cache.

A run belongs to the service, not to the call that started it: it goes on while any caller waits
for it, and ends with its last caller. Each caller keeps its own deadline, counted from the start of
the agent, or from the caller's arrival if that was later.
"""

import math
import time
from collections.abc import Awaitable, Callable
from types import WrapperDescriptorType

import msgspec
import trio

from agent_dispatch.core.cache import Cache, request_key
from agent_dispatch.core.outcome.refusal import refused
from agent_dispatch.core.stream.progress_text import with_agent
from agent_dispatch.errors import DispatchError
from agent_dispatch.model.config import CacheSettings
from agent_dispatch.model.dispatch import (
    NO_OPTIONS,
    CallOptions,
    DispatchResult,
    ErrorType,
    OnProgress,
    Progress,
)
from agent_dispatch.model.next_step import NextStep, StepKind
from agent_dispatch.model.replies import CacheStats
from agent_dispatch.run.plan import Plan
from agent_dispatch.run.time_limit import TimeLimit

Start = Callable[[OnProgress, TimeLimit], Awaitable[DispatchResult]]
"""Runs a dispatch to its end within the limit."""


class SingleFlight:
    """The cached answers, and the runs that other calls may join."""

    def __init__(self, nursery: trio.Nursery) -> None:
        """Start shared runs in `nursery`."""
        self._nursery = nursery
        self._cache = Cache()
        self._runs: dict[bytes, _SharedRun] = {}

    async def answer(
        self,
        plan: Plan,
        on_progress: OnProgress,
        start: Start,
        options: CallOptions = NO_OPTIONS,
        *,
        outlives: bool = False,
    ) -> DispatchResult:
        """Answer from the cache, by a run that is going on, or by a new one.

        If cancelled, and no other caller waits for the run, no process of it is left, unless it
        outlives its callers.

        Args:
            on_progress: Gets the progress of the run, even if another call started it.
            options: Whether to share the run and its answer.
            outlives: The run goes on without callers: a new one in a process of its own, one that
                another call started for as long as this process lives.

        Raises:
            DispatchError: Raised by `start`.
        """
        if options.alone or not plan.is_shareable:
            return await start(on_progress, TimeLimit(plan.timeout_s))
        key, settings = _key(plan), plan.settings.cache
        if options.fresh:
            generation = self._cache.generation
            result = await start(on_progress, TimeLimit(plan.timeout_s))
            self._keep(key, result, generation, settings)
            return result
        kept = self._cache.get(key, trio.current_time(), settings)
        if kept is not None:
            cached = Progress("answered from the cache", kept.job_id)
            on_progress(with_agent(plan.request.agent, cached, 0))
            return kept
        run = self._runs.get(key)
        if run is None or run.is_ending:
            run = self._runs[key] = _SharedRun(plan.timeout_s, outlives=outlives)
            self._nursery.start_soon(self._run, key, run, settings, start)
        else:
            self._cache.count_shared()
            run.outlives |= outlives
        return await run.wait(_Caller(plan, on_progress))

    def kept(self, plan: Plan) -> DispatchResult | None:
        """Return the answer to an identical earlier request, if it is in the cache."""
        if not plan.is_shareable:
            return None
        return self._cache.get(_key(plan), trio.current_time(), plan.settings.cache)

    def keep(self, plan: Plan, result: DispatchResult, ended_at: float) -> None:
        """Cache the answer of another process's run, which ended at this time of the epoch."""
        if plan.is_shareable:
            now = trio.current_time()
            self._cache.put(_key(plan), result, now, plan.settings.cache, ended_at=ended_at)

    def known_job(self, plan: Plan) -> str | None:
        """Return the job that answers this request: from the cache, or a run that is going on."""
        key = _key(plan)
        kept = self._cache.get(key, trio.current_time(), plan.settings.cache)
        if kept is not None:
            return kept.job_id
        run = self._runs.get(key)
        if run is None or run.is_ending or run.job_id is None:
            return None
        self._cache.count_shared()
        return run.job_id

    async def forget_unless(
        self, plan: Plan, is_recorded: Callable[[str], Awaitable[bool]]
    ) -> None:
        """Forget the cached answer to this request if the record of its job was removed."""
        key = _key(plan)
        kept = self._cache.peek(key)
        if kept is not None and (kept.job_id is None or not await is_recorded(kept.job_id)):
            self._cache.forget(key)

    def stats(self, settings: CacheSettings) -> CacheStats:
        """Return how full the cache is and how often it helped."""
        return self._cache.stats(trio.current_time(), settings)

    def clear(self) -> int:
        """Forget all answers, also those of runs that are going on; return how many were kept.

        Such a run still answers the callers that wait for it, but no later ones.
        """
        self._runs.clear()
        return self._cache.clear()

    async def _run(
        self, key: bytes, run: "_SharedRun", settings: CacheSettings, start: Start
    ) -> None:
        generation = self._cache.generation
        try:
            with run.scope:
                run.result = await start(run.report, run.limit)
                self._keep(key, run.result, generation, settings)
        except Exception as error:
            run.failure = error  # Each caller gets a copy.
        finally:
            if self._runs.get(key) is run:
                del self._runs[key]
            run.over.set()

    def _keep(
        self, key: bytes, result: DispatchResult, generation: int, settings: CacheSettings
    ) -> None:
        """Cache an answer, unless the cache was cleared since its run began."""
        if generation == self._cache.generation:
            now = trio.current_time()
            self._cache.put(key, result, now, settings, ended_at=time.time())


def _key(plan: Plan) -> bytes:
    return request_key(plan.request, plan.agent, plan.prompt)


class _Caller:
    """One call that waits for a run."""

    def __init__(self, plan: Plan, on_progress: OnProgress) -> None:
        self.agent = plan.agent.name
        self.timeout_s = plan.timeout_s
        self.on_progress = on_progress
        self.deadline = math.inf
        self.scope = trio.CancelScope()
        self._left_s = plan.timeout_s

    def pause(self, now: float) -> None:
        """Pause its clock while a person is asked something."""
        if self.deadline != math.inf:
            self._left_s = self.deadline - now
            self.scope.deadline = self.deadline = math.inf

    def resume(self, now: float) -> None:
        """Start its clock, or let it go on."""
        if self.deadline == math.inf:
            self.deadline = now + self._left_s


class _SharedRun:
    """A run and the callers that wait for it."""

    def __init__(self, timeout_s: float, *, outlives: bool) -> None:
        self.outlives = outlives
        """It goes on without callers."""
        self.limit = TimeLimit(timeout_s, self._retime)
        self.scope = trio.CancelScope()
        self.over = trio.Event()
        self.result: DispatchResult | None = None
        self.failure: Exception | None = None
        self._callers: list[_Caller] = []
        self.job_id: str | None = None

    @property
    def is_ending(self) -> bool:
        """Too late to join: its time is up, or its last caller has left."""
        return self.limit.has_passed or self.scope.cancel_called

    def report(self, progress: Progress) -> None:
        self.job_id = progress.job_id or self.job_id
        for caller in self._callers:
            caller.on_progress(progress)

    async def wait(self, caller: _Caller) -> DispatchResult:
        """Wait for the answer, at most until the deadline of the caller."""
        if self.job_id is not None:
            same = Progress(f"asked the same already, job {self.job_id[-8:]}", self.job_id)
            caller.on_progress(with_agent(caller.agent, same, 0))
        self._callers.append(caller)
        self._retime()
        try:
            with caller.scope:
                await self.over.wait()
            if self.failure is not None:
                raise _copy_of(self.failure)
            return self._out_of_time(caller) if self.result is None else self.result
        finally:
            self._callers.remove(caller)
            self._retime()
            if not self._callers and not self.over.is_set() and not self.outlives:
                self.scope.cancel()
                with trio.CancelScope(shield=True):
                    await self.over.wait()
                # No caller gets it, but a bug must still be raised.
                if self.failure is not None and not isinstance(self.failure, DispatchError):
                    raise _copy_of(self.failure)

    def _out_of_time(self, caller: _Caller) -> DispatchResult:
        error = (
            f"Timed out after {caller.timeout_s:g} s. Another caller asked the same and has more"
            " time, so the run goes on."
        )
        wait = NextStep(kind=StepKind.WAIT, job_id=self.job_id or "")
        result = refused(caller.agent, error, ErrorType.TIMEOUT, (wait,))
        return msgspec.structs.replace(result, job_id=self.job_id)

    def _retime(self) -> None:
        """Give the run the latest deadline of its callers; the others leave earlier."""
        if not self.limit.has_begun or not self._callers:
            return
        now = trio.current_time()
        if self.limit.is_paused:
            for caller in self._callers:
                caller.pause(now)
            return
        for caller in self._callers:
            caller.resume(now)
        last = max(caller.deadline for caller in self._callers)
        for caller in self._callers:
            # Callers whose deadline equals the run's get the run's own timeout result.
            caller.scope.deadline = math.inf if caller.deadline == last else caller.deadline
        self.limit.move_to(last)


def _copy_of(error: Exception) -> Exception:
    """Copy an exception for one of several callers.

    One object raised in several tasks would collect the tracebacks, notes and contexts of all.
    """
    kind = type(error)
    reduced = error.__reduce__()  # With the file name, which `args` of an OSError lacks.
    args = error.args if isinstance(reduced, str) else reduced[1]
    copy = kind.__new__(kind, *args)
    if isinstance(kind.__init__, WrapperDescriptorType):
        # Our own exceptions may take other arguments; built-in ones set what `vars` does not show.
        kind.__init__(copy, *args)
    copy.args = error.args
    vars(copy).update(vars(error))
    if (notes := getattr(error, "__notes__", None)) is not None:
        copy.__notes__ = list(notes)
    copy.__cause__, copy.__context__ = error.__cause__, error.__context__
    copy.__suppress_context__ = error.__suppress_context__
    return copy.with_traceback(error.__traceback__)
