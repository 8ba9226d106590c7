"""Calls that wait for an agent, and callers that leave before the answer is there.

A client's clock is not a person. If the client gives up a call because its own time limit passed,
the work goes on: the next identical call joins it, or gets its answer once, for an hour after its
end. Any other cancellation ends the work.
"""

import logging
import math
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING

import trio

from agent_dispatch.core.agents.rights import WideningError
from agent_dispatch.errors import DispatchError
from agent_dispatch.model.dispatch import DispatchResult, ErrorType, OnProgress, Progress
from agent_dispatch.model.question import Question
from agent_dispatch.run.service import Service

if TYPE_CHECKING:
    from agent_dispatch.server.calls.forms import Response

logger = logging.getLogger(__name__)

KEPT_S = 3600.0
"""How long an answer that no caller waited for is kept for the next identical call."""
MAX_KEPT = 256
"""How many such answers; each can still be fetched by the id of its job."""
_CLOCK = re.compile(r"timed out|-32001", re.IGNORECASE)
"""In the reason of a cancel notice: the limit of the client, not a person (Claude Code writes
`SdkError: Request timed out`, the TypeScript SDK the error code, the Python SDK `timed out after`).
"""

Work = Callable[[OnProgress], Awaitable[object]]
"""Does what a call asks for; if cancelled, it ends all that it started."""


@dataclass(frozen=True, slots=True)
class Early:
    """What a caller is answered whose work goes on as a background job."""

    job_id: str


class ShowsForms(Enum):
    """How a client that takes no task has its user asked something."""

    NO = auto()
    IN_CALL = auto()
    """The server asks while the call goes on."""
    BY_RETRY = auto()
    """The answer asks, and the client repeats its call with the response."""


class TaskWish(Enum):
    """Whether a caller takes a task for an answer."""

    NONE = auto()
    IF_LONG = auto()
    """It takes one if the answer takes long."""
    AT_ONCE = auto()
    """It takes nothing but a task."""


@dataclass(eq=False)
class Caller:
    """The maker of one call."""

    task: TaskWish = TaskWish.NONE

    shows_forms: ShowsForms = ShowsForms.NO

    """How its client has its user asked something."""
    show: OnProgress | None = None
    """Gets what is asked while the call goes on, if its client shows forms then."""
    accepts: Callable[[WideningError], Awaitable[bool]] | None = None
    """The same for a change that gives an agent more rights: whether its user accepts it."""
    response: "Response | None" = None
    """What it brings, if it repeats an earlier call."""
    asked: frozenset[str] = frozenset()
    """The questions that its user was asked by earlier answers, by their ids."""
    client: str = ""
    """The name that its client gave; empty if it gave none."""
    arrived_at: float = field(default_factory=trio.current_time)
    """On Trio's clock."""
    left_because: str | None = None
    """The reason of its cancel notice, once one came."""
    answered: "tuple[bytes, _Kept] | None" = None
    """The key of its call and the answer that was given to it."""

    def must_hear_of(self, questions: Iterable[Question]) -> bool:
        """Whether it is to be answered now because its user is asked something."""
        if self.task is not TaskWish.NONE:
            return bool(tuple(questions))
        is_new = any(question.id not in self.asked for question in questions)
        return self.shows_forms is ShowsForms.BY_RETRY and is_new

    @property
    def left_by_clock(self) -> bool:
        """It gave the call up because its own time limit passed."""
        return self.left_because is not None and _CLOCK.search(self.left_because) is not None


class _Kept:
    """An answer that may have reached nobody."""

    def __init__(self, call: "_Call") -> None:
        self.at = trio.current_time()
        self.answer = call.answer
        self.job_id = call.job_id if call.job_ids else None


@dataclass(frozen=True, slots=True)
class _Waiting:
    """What a caller does meanwhile."""

    sink: OnProgress
    scope: trio.CancelScope
    """Around its wait for the answer."""


@dataclass(eq=False)
class _Call:
    """One piece of work and the callers that wait for it."""

    detached: bool
    """Its job runs in a process of its own: that goes on unless it is cancelled."""
    callers: dict[Caller, _Waiting] = field(default_factory=dict)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    over: trio.Event = field(default_factory=trio.Event)
    answer: object = None
    failure: Exception | None = None
    job_ids: dict[str, None] = field(default_factory=dict)
    """Of the jobs that it started or joined, in order."""
    has_job: trio.Event = field(default_factory=trio.Event)
    is_left: bool = False
    """A client's clock gave it up: the records of its jobs are kept."""
    is_told: bool = False
    """A caller was answered early: only a cancellation of the job ends it."""

    @property
    def job_id(self) -> str:
        """The job that the caller is told of."""
        return next(iter(self.job_ids))

    @property
    def is_free(self) -> bool:
        """It goes on, and every caller left by its clock; the last may not have noticed it yet."""
        left = all(caller.left_by_clock for caller in self.callers)
        return left and not self.scope.cancel_called


class Ongoing:
    """The calls of one server that wait for agents, and answers that nobody has taken."""

    def __init__(self, nursery: trio.Nursery, service: Service | DispatchError) -> None:
        """Work in `nursery`, on jobs of `service`."""
        self.nursery = nursery
        """For what goes on beside the calls; cancelled when the server ends."""
        self._service = service
        self._calls: dict[bytes, _Call] = {}
        """The newest work of each key."""
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()

    async def wait(
        self,
        key: bytes,
        work: Work,
        on_progress: OnProgress,
        caller: Caller,
        *,
        detached: bool = False,
        until: float = math.inf,
    ) -> object:
        """Do the work of a call and give its answer.

        If cancelled, the work has ended when `Cancelled` leaves this call, unless the caller left
        by its clock, or another caller waits for the same work. Without a cancel notice, a job
        that is detached goes on: the server ends.

        Args:
            key: What identical calls have in common.
            work: Starts the work, unless it goes on already.
            on_progress: Gets what the work reports.
            caller: Says, after a cancellation, why it left.
            detached: The work is a background job, which `work` only starts and waits for.
            until: When an answer is due, on Trio's clock; only for what is detached.

        Returns:
            The answer; `Early` if the work had not ended in time.

        Raises:
            DispatchError: What `work` raised.
        """
        if (kept := self._take_kept(key)) is not None:
            if caller.task is TaskWish.AT_ONCE and kept.job_id is not None:
                return Early(kept.job_id)
            return kept.answer
        call = self._calls.get(key)
        if call is None or not call.is_free or call.detached is not detached:
            call = self._calls[key] = _Call(detached)
            self.nursery.start_soon(self._run, key, call, work)
        elif call.job_ids:
            same = f"The same was asked before: job {call.job_id[-8:]}"
            on_progress(Progress(same, call.job_id))
        waiting = call.callers[caller] = _Waiting(on_progress, trio.CancelScope(deadline=until))
        try:
            with waiting.scope:
                await call.over.wait()
            if not call.over.is_set():
                await call.has_job.wait()
        except trio.Cancelled:
            # Shielded inside; a run that is cancelled ends within bounds of its own.
            await self._leave(key, call, caller)  # noqa: ASYNC102
            raise
        del call.callers[caller]
        if call.failure is not None:
            raise call.failure
        if not call.over.is_set() or (caller.task is TaskWish.AT_ONCE and call.job_ids):
            call.is_told = True
            return Early(call.job_id)
        caller.answered = key, _Kept(call)
        if caller.left_by_clock:
            self.take_back(caller)
        return call.answer

    def take_back(self, caller: Caller) -> None:
        """Keep the answer of a caller whose clock gave it up while the answer was on its way."""
        if caller.answered is not None:
            self._keep(*caller.answered)

    async def _leave(self, key: bytes, call: _Call, caller: Caller) -> None:
        with trio.CancelScope(shield=True):
            # The MCP library cancels a call first and reports the notice right after it.
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
            del call.callers[caller]
            if call.callers:
                return
            if call.is_told:
                return
            if not caller.left_by_clock:
                await self._end(call, caller)
            elif call.over.is_set():
                self._keep(key, _Kept(call))
            else:
                call.is_left = True
                for job_id in call.job_ids:
                    self._keep_record(job_id)

    async def _end(self, call: _Call, caller: Caller) -> None:
        """End what a call started; without a cancel notice a job of its own goes on."""
        call.scope.cancel()
        await call.over.wait()
        if not call.detached or caller.left_because is None or not call.job_ids:
            return
        shared = any(call.job_id in other.job_ids for other in self._calls.values())
        if not shared and not isinstance(self._service, DispatchError):
            # It has a bound of its own.
            await self._service.cancel(call.job_id, by="its caller")

    def _keep_record(self, job_id: str) -> None:
        if not isinstance(self._service, DispatchError):
            self._service.keep_record(job_id)

    async def _run(self, key: bytes, call: _Call, work: Work) -> None:
        def report(progress: Progress) -> None:
            if progress.job_id is not None and progress.job_id not in call.job_ids:
                call.job_ids[progress.job_id] = None
                call.has_job.set()
                if call.is_left:
                    self._keep_record(progress.job_id)
            for caller, waiting in call.callers.items():
                waiting.sink(progress)
                if caller.show is not None:
                    caller.show(progress)
                if call.detached and caller.must_hear_of(progress.questions or ()):
                    # A person can answer once the call is answered.
                    waiting.scope.cancel()

        try:
            with call.scope:
                call.answer = await work(report)
        except Exception as error:
            call.failure = error
            if not call.callers and not isinstance(error, DispatchError):
                logger.exception("bug in agent-dispatch: a call that nobody waits for failed")
        except BaseExceptionGroup as group:
            # A nursery that was cancelled while something in it failed.
            _, bugs = group.split(trio.Cancelled)
            logger.error("bug in agent-dispatch: a cancelled call failed", exc_info=bugs)
            # A cancellation outranks what failed beside it, which is logged.
            await trio.lowlevel.checkpoint_if_cancelled()  # noqa: ASYNC120
            raise
        finally:
            if self._calls.get(key) is call:
                del self._calls[key]
            if not call.callers and not call.is_told:
                self._keep(key, _Kept(call))
            call.has_job.set()
            call.over.set()

    def _keep(self, key: bytes, kept: _Kept) -> None:
        """Keep an answer for the next identical call."""
        if kept.answer is None or _is_cancelled(kept.answer):
            return
        self._kept[key] = kept
        self._kept.move_to_end(key)
        if len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)

    def _take_kept(self, key: bytes) -> _Kept | None:
        """Take an answer that no caller waited for; forget those that are too old."""
        oldest = trio.current_time() - KEPT_S
        while self._kept and next(iter(self._kept.values())).at < oldest:
            self._kept.popitem(last=False)
        return self._kept.pop(key, None)


def _is_cancelled(answer: object) -> bool:
    """Whether somebody ended the work on purpose: then the same call asks for it anew."""
    return isinstance(answer, DispatchResult) and answer.error_type is ErrorType.CANCELLED
