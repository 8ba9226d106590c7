"""Identical calls in flight share one run, and later ones its answer.

A run belongs to the service, not to the call that came first: it goes on for as long as anybody
waits for it, and ends with its last caller. Each caller keeps its own deadline, counted from when
the agent was started, or from its own arrival if that was later.
"""

import math
from collections.abc import Awaitable, Callable
from types import WrapperDescriptorType

import msgspec
import trio

from agent_dispatch.core.cache import Cache, request_key
from agent_dispatch.core.outcome import refused
from agent_dispatch.errors import DispatchError
from agent_dispatch.model.answer import CacheStats
from agent_dispatch.model.config import CacheSettings, EffectiveAgent
from agent_dispatch.model.dispatch import (
    DispatchRequest,
    DispatchResult,
    ErrorType,
    OnProgress,
    Progress,
)
from agent_dispatch.run.one_run import effective_timeout_s
from agent_dispatch.run.time_limit import TimeLimit

Start = Callable[[OnProgress, TimeLimit], Awaitable[DispatchResult]]
"""Runs a dispatch to its end, within the limit."""


class Sharing:
    """The answers that are kept, and the runs under way that others may join."""

    def __init__(self, nursery: trio.Nursery) -> None:
        """Run in `nursery` what is shared."""
        self._nursery = nursery
        self._cache = Cache()
        self._runs: dict[bytes, _SharedRun] = {}

    async def dispatch(
        self,
        request: DispatchRequest,
        agent: EffectiveAgent,
        settings: CacheSettings,
        on_progress: OnProgress,
        start: Start,
    ) -> DispatchResult:
        """Answer from the cache, or by a run under way, or else by a new one.

        If cancelled, and nobody else waits for the run, no process of it is left.

        Args:
            request: What is asked.
            agent: Of whom, as it is configured now.
            settings: Of the cache.
            on_progress: Called as for a run of one's own.
            start: Makes the new run.

        Raises:
            DispatchError: What `start` raised.
        """
        key = request_key(request, agent)
        kept = self._cache.get(key, trio.current_time(), settings)
        if kept is not None:
            on_progress(Progress("Answered from the cache", kept.job_id))
            return kept
        timeout_s = effective_timeout_s(request, agent)
        run = self._runs.get(key)
        if run is None or run.is_ending:
            run = self._runs[key] = _SharedRun(timeout_s)
            self._nursery.start_soon(self._run, key, run, settings, start)
        else:
            self._cache.count_shared()
        return await run.wait(_Caller(timeout_s, on_progress), agent)

    def stats(self, settings: CacheSettings) -> CacheStats:
        """How full the cache is and how often it helped."""
        return self._cache.stats(trio.current_time(), settings)

    def clear(self) -> int:
        """Forget all answers, also those of runs that are under way; how many were kept.

        Such a run still answers those who wait for it, and nobody who asks from now on.
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
                if generation == self._cache.generation:
                    self._cache.put(key, run.result, trio.current_time(), settings)
        except Exception as error:
            run.failure = error  # Each of its callers gets a copy.
        finally:
            if self._runs.get(key) is run:
                del self._runs[key]
            run.end()


class _Caller:
    """One call that waits for a run."""

    def __init__(self, timeout_s: float, on_progress: OnProgress) -> None:
        self.timeout_s = timeout_s
        self.on_progress = on_progress
        self.deadline = math.inf
        self.scope = trio.CancelScope()


class _SharedRun:
    """A run and those who wait for it."""

    def __init__(self, timeout_s: float) -> None:
        self.limit = TimeLimit(timeout_s, self._retime)
        self.scope = trio.CancelScope()
        self.over = trio.Event()
        self.result: DispatchResult | None = None
        self.failure: Exception | None = None
        self._callers: list[_Caller] = []
        self._payer: _Caller | None = None
        self._job_id: str | None = None

    @property
    def is_ending(self) -> bool:
        """Its time is up, or nobody waited for it any more: it is too late to join."""
        return self.limit.has_passed or self.scope.cancel_called

    def report(self, progress: Progress) -> None:
        self._job_id = progress.job_id or self._job_id
        for caller in self._callers:
            caller.on_progress(progress)

    def end(self) -> None:
        """Let all callers have what came of it."""
        self._payer = self._callers[0] if self._callers else None
        self.over.set()

    async def wait(self, caller: _Caller, agent: EffectiveAgent) -> DispatchResult:
        if self._job_id is not None:
            same = f"The same is being asked already: job {self._job_id}"
            caller.on_progress(Progress(same, self._job_id))
        self._callers.append(caller)
        self._retime()
        try:
            with caller.scope:
                await self.over.wait()
            return self._answer(caller, agent)
        finally:
            self._callers.remove(caller)
            self._retime()
            if not self._callers and not self.over.is_set():
                self.scope.cancel()
                with trio.CancelScope(shield=True):
                    await self.over.wait()
                # That nobody waits for the answer is no reason to hide a bug.
                if self.failure is not None and not isinstance(self.failure, DispatchError):
                    raise _copy_of(self.failure)

    def _answer(self, caller: _Caller, agent: EffectiveAgent) -> DispatchResult:
        if self.failure is not None:
            raise _copy_of(self.failure)
        if self.result is None:
            return self._out_of_patience(caller, agent)
        if caller is self._payer:
            return self.result
        # It was paid for once.
        return msgspec.structs.replace(self.result, cached=True)

    def _out_of_patience(self, caller: _Caller, agent: EffectiveAgent) -> DispatchResult:
        error = (
            f"Timed out after {caller.timeout_s:g} s. Another caller asked the same and has more"
            f' time, so the run goes on: dispatch_wait(job_id="{self._job_id}") gives its answer.'
        )
        result = refused(agent.name, error, ErrorType.TIMEOUT)
        return msgspec.structs.replace(result, job_id=self._job_id)

    def _retime(self) -> None:
        """Give the run the time of its most patient caller; the others leave before."""
        if not self.limit.has_begun or not self._callers:
            return
        now = trio.current_time()
        for caller in self._callers:
            if caller.deadline == math.inf:
                caller.deadline = now + caller.timeout_s
        last = max(caller.deadline for caller in self._callers)
        for caller in self._callers:
            # Who has as long as the run gets what the run itself says at its limit.
            caller.scope.deadline = math.inf if caller.deadline == last else caller.deadline
        self.limit.move_to(last)


def _copy_of(error: Exception) -> Exception:
    """Make an exception to raise to one of several callers.

    Raising one object in several tasks would add the traceback of each to all, and let what one
    caller adds to it (a note, a context) show in the others'.
    """
    kind = type(error)
    reduced = error.__reduce__()  # With the file name, which `args` of an OSError lacks.
    args = error.args if isinstance(reduced, str) else reduced[1]
    copy = kind.__new__(kind, *args)
    if isinstance(kind.__init__, WrapperDescriptorType):
        # Ours may take other arguments; the built-in ones set what `vars` does not show.
        kind.__init__(copy, *args)
    copy.args = error.args
    vars(copy).update(vars(error))
    if (notes := getattr(error, "__notes__", None)) is not None:
        copy.__notes__ = list(notes)
    copy.__cause__, copy.__context__ = error.__cause__, error.__context__
    copy.__suppress_context__ = error.__suppress_context__
    return copy.with_traceback(error.__traceback__)
