"""Run a job and record how it ended, whatever ends it.

The record is durable before anything is started, and terminal before the answer is given. Two
tasks run beside the work. One writes progress to the record. The other listens to other processes:
it delivers their mail, cancels the work if one of them asks for it, and notes a cancellation before
this process may leave. If this process dies instead, the guard holds the job's lock until no
process of the run is left, and the next reader settles the record.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import NoReturn

import msgspec
import trio

from agent_dispatch.claude.child import Child
from agent_dispatch.core.masking import mask
from agent_dispatch.core.outcome.refusal import refused, refused_by
from agent_dispatch.core.stream.progress_text import started_line, with_agent
from agent_dispatch.errors import NOT_JSON, DispatchError
from agent_dispatch.jobs.mailbox import Mail
from agent_dispatch.jobs.owner import OnMail, Ownership
from agent_dispatch.jobs.store import Finished
from agent_dispatch.model.dispatch import DispatchResult, ErrorType, OnProgress, Progress
from agent_dispatch.model.event import OnEvent, end_event, ignore_event, question_event
from agent_dispatch.model.job import JobKind
from agent_dispatch.model.message import KEEP_MAIL, MESSAGE_MAIL, Keep, MessageBody
from agent_dispatch.model.next_step import NextStep, StepKind
from agent_dispatch.model.question import ANSWER_MAIL, Answer, Question
from agent_dispatch.run.accounts import Account
from agent_dispatch.run.messages import Messages
from agent_dispatch.run.questions import Questions
from agent_dispatch.threads import in_own_thread

CancelledBy = Callable[[str], DispatchResult]
"""Returns the result of cancelled work; the argument says who cancelled it."""


class JobRun:
    """A job while it runs. Nothing here raises, and only `go_on` waits."""

    def __init__(
        self,
        owned: Ownership,
        nursery: trio.Nursery,
        on_progress: OnProgress,
        cancel: Callable[[str], object],
        on_event: OnEvent,
    ) -> None:
        """Run what `owned` records.

        Args:
            on_progress: Gets what the record gets.
            cancel: Cancels the run; its argument says for whom.
            on_event: Gets permission questions.
        """
        self.owned = owned
        self.children: list[Child] = []
        """Every claude that was started for it."""
        self.helpers: list[Child] = []
        """Every other program that was started for it."""
        self.cancelled: CancelledBy = partial(cancelled_before_start, owned)
        """Replaced by the work once something has begun."""
        self.nursery = nursery
        """For work beside the run; cancelled when the run has ended."""
        self.account: Account | None = None
        """The bookings of its runs, once they may start."""
        self._on_progress = on_progress
        self._is_ending = False
        self._on_event = on_event
        self.questions = Questions(owned, self.report, on_question=self._on_question)
        self.messages = Messages(owned)
        self.cancel = cancel
        """Cancels the work; the argument says for whom."""
        self.interrupt = cancel
        """The same, but what the agent has said is kept. Replaced by work that can do that."""

    @property
    def tree_ended(self) -> bool:
        """No process of it is left."""
        return all(child.ended for child in (*self.children, *self.helpers))

    def take_mail(self, mail: Mail) -> None:
        """Do what mail asks for; the replies go into the job's record (`Ownership.note`)."""
        with suppress(*NOT_JSON):  # The body is from another version.
            if mail.kind == ANSWER_MAIL:
                self.questions.take_answer(msgspec.json.decode(mail.body, type=Answer))
            elif mail.kind == MESSAGE_MAIL:
                self.messages.take(mail, msgspec.json.decode(mail.body, type=MessageBody))
            elif mail.kind == KEEP_MAIL:
                self._keep(msgspec.json.decode(mail.body, type=Keep))

    def report(self, progress: Progress) -> None:
        """Record progress and pass it on, with keys masked."""
        masked = msgspec.structs.replace(progress, message=mask(progress.message))
        progress = with_agent(self.owned.job.agent, masked, self.owned.run_s)
        self.owned.report(progress.message)
        self._on_progress(progress)

    def _on_question(self, question: Question) -> None:
        if self._on_event is not ignore_event:
            event = question_event(self.owned.job, question)
            self.nursery.start_soon(
                partial(in_own_thread, self._on_event, event, abandon_on_cancel=True)
            )

    def _keep(self, keep: Keep) -> None:
        # If this process is killed meanwhile, the job counts as cancelled, not as lost.
        self.nursery.start_soon(self.owned.mark_cancelled, keep.by)
        self.mark_ending()
        self.interrupt(keep.by)

    def mark_ending(self) -> None:
        """Note that the processes of the run are being ended, by us or by the guard."""
        if not self._is_ending:
            self._is_ending = True
            self.nursery.start_soon(self.owned.mark_ending)

    async def go_on(self) -> None:
        """Note that new processes of the run will start; the earlier ones have all ended.

        Otherwise jobs started inside them would count as ending with the run.
        """
        if self._is_ending:
            self._is_ending = False
            await self.owned.unmark_ending()


Work = Callable[[JobRun], Awaitable[DispatchResult]]
"""Does the work of a job; if cancelled, it ends everything that it started."""


async def run_job(
    owned: Ownership,
    work: Work,
    on_progress: OnProgress,
    *,
    on_behalf_of: str,
    beside: Callable[[], Awaitable[object]] | None = None,
    on_event: OnEvent = ignore_event,
) -> DispatchResult:
    """Do the work of a job, and record how it ended.

    If cancelled, no process of the work is left and the record is terminal when `Cancelled` leaves
    this call. If this process is killed first, the next reader of the record finishes it. A
    cancellation by another process is a result, not `Cancelled`.

    Args:
        owned: The job.
        on_progress: Gets what the record gets.
        on_behalf_of: Who cancels the job if this call is cancelled, for the end of a sentence.
        beside: Runs meanwhile, and is cancelled when the work is done. It must not raise, because
            that would end the work.
        on_event: Gets permission questions, and the end of a background job.

    Raises:
        DispatchError: The request is wrong, or nothing can be started; this is recorded too.
    """
    cancelling = _Cancelling(owned, on_behalf_of)
    failure: DispatchError | None = None
    result: DispatchResult | None = None
    run: JobRun | None = None
    try:
        async with trio.open_nursery() as nursery:
            run = JobRun(owned, nursery, on_progress, cancelling.cancel, on_event)
            run.report(started_line(owned.job.id))
            nursery.start_soon(owned.keep_record)
            nursery.start_soon(cancelling.listen, run.take_mail)
            if beside is not None:
                nursery.start_soon(beside)
            try:
                with cancelling.scope:
                    result = await work(run)
            except DispatchError as error:
                # Raised outside the nursery, which would wrap it in a group.
                failure = error
                result = refused_by(error, owned.job.agent)
            cancelling.over = True
            nursery.cancel_scope.cancel()
    except Exception as bug:
        text = f"Bug in agent-dispatch: {bug!r}. Please report it."
        result = refused(owned.job.agent, text)
        raise
    finally:
        if result is None:
            if run is None:
                result = cancelled_before_start(owned, cancelling.by)
            else:
                result = run.cancelled(cancelling.by)
        # The steps have bounds of their own, of 2, 20, 20 and 10 seconds.
        with trio.CancelScope(shield=True):
            if not result.success and await owned.ends_with_its_parent():
                result = _with_parent(result, owned.job.parent)
            if run is not None and run.account is not None:
                result = await run.account.settle(result)
            finished = await owned.finish(result, tree_ended=run is None or run.tree_ended)
            if owned.job.kind is not JobKind.CALL and on_event is not ignore_event:
                # The record is final already; nobody waits for this.
                await in_own_thread(on_event, end_event(finished.job))
    if failure is not None:
        raise failure
    return _answer(finished, owned.job.id, result)


class _Cancelling:
    """Cancels the work of a job, when another process or something in this one asks for it."""

    def __init__(self, owned: Ownership, on_behalf_of: str) -> None:
        self._owned = owned
        self.scope = trio.CancelScope()
        self.by = on_behalf_of
        self.over = False

    def cancel(self, by: str) -> None:
        """Cancel the work; `by` wants it."""
        self.by = by
        self.scope.cancel()

    async def listen(self, on_mail: OnMail) -> NoReturn:
        """Deliver the job's mail until another process cancels the job, and then end the work.

        If anything else ends the work, note who did it. A server that exits does not wait until its
        agents have ended, which is the work of their guards; the note lets the next reader record a
        cancelled job instead of a lost one.
        """
        try:
            by = await self._owned.wait_cancelled(on_mail)
            await self._owned.mark_ending()
            self.cancel(by)
            await trio.sleep_forever()
        finally:
            if not self.over:
                # It has a bound of its own, of 2 seconds.
                with trio.CancelScope(shield=True):
                    await self._owned.mark_cancelled(self.by)


def cancelled_before_start(owned: Ownership, by: str) -> DispatchResult:
    """Return the result of a job that was cancelled before anything was started for it."""
    no_session = NextStep(kind=StepKind.RESUME, agent=owned.job.agent)
    return refused(owned.job.agent, f"Cancelled by {by}.", ErrorType.CANCELLED, (no_session,))


def _with_parent(result: DispatchResult, parent: str | None) -> DispatchResult:
    """Make it the result of a run that was ended with the run around it."""
    return msgspec.structs.replace(
        result,
        error=f"Cancelled with the dispatch that started it (job {parent}), which ended.",
        error_type=ErrorType.CANCELLED,
        next_steps=[s for s in result.next_steps or () if s.kind is StepKind.RESUME] or None,
    )


def _answer(finished: Finished, job_id: str, result: DispatchResult) -> DispatchResult:
    """Return the result as it was recorded; if it was not, the whole result with a remark."""
    if finished.problem is None:
        return finished.job.result or msgspec.structs.replace(result, job_id=job_id)
    remark = f"The answer could not be recorded, so it cannot be fetched again: {finished.problem}"
    # Without the id, so that no surface shortens an answer that cannot be fetched again.
    return msgspec.structs.replace(
        result, job_id=None, hint=" ".join(filter(None, (result.hint, remark)))
    )
