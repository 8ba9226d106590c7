"""Run a job and record how it ended, whatever ends it.

The record is durable before anything is started, and terminal before the answer is given. While
the work goes on, two tasks stand beside it: one writes progress, one listens to other processes:
it hands their mail to the work, ends the work if one of them cancels it, and notes on the way out
why the record may stay behind. If this process dies
instead, the guard still holds the job's lock until no process of the run is left, and the next
reader settles the record.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import NoReturn, TypeVar

import msgspec
import trio

from agent_dispatch.claude.child import Child
from agent_dispatch.core.masking import mask
from agent_dispatch.core.outcome.refusal import refused, refused_by
from agent_dispatch.core.stream.progress_text import started_line, with_agent
from agent_dispatch.errors import DispatchError
from agent_dispatch.jobs.mailbox import Mail
from agent_dispatch.jobs.owner import OnMail, Ownership
from agent_dispatch.jobs.store import Finished
from agent_dispatch.model.dispatch import DispatchResult, ErrorType, OnProgress, Progress
from agent_dispatch.model.event import TellEvent, end_event, ignore_event, question_event
from agent_dispatch.model.job import JobKind
from agent_dispatch.model.message import KEEP_MAIL, MESSAGE_MAIL, Keep, MessageBody
from agent_dispatch.model.next_step import NextStep, StepKind
from agent_dispatch.model.question import ANSWER_MAIL, Answer, Question
from agent_dispatch.run.accounts import Account
from agent_dispatch.run.messages import Messages
from agent_dispatch.run.questions import Questions
from agent_dispatch.threads import in_own_thread

T = TypeVar("T")

CancelledBy = Callable[[str], DispatchResult]
"""Says what came of work that was cancelled; takes who cancelled it."""


class JobRun:
    """A job while it runs; none of this waits, none of it raises."""

    def __init__(
        self,
        owned: Ownership,
        nursery: trio.Nursery,
        on_progress: OnProgress,
        cancel: Callable[[str], object],
        tell: TellEvent = ignore_event,
    ) -> None:
        """Run what `owned` records.

        Args:
            owned: The job.
            nursery: For work beside the run.
            on_progress: Gets what the record gets.
            cancel: Cancels the run on behalf of somebody.
            tell: Told of permission questions.
        """
        self.owned = owned
        self.children: list[Child] = []
        """Every claude that was started for it."""
        self.helpers: list[Child] = []
        """Every other program that was."""
        self.cancelled: CancelledBy = nothing_begun(owned)
        """Replaced by the work once it has something to say."""
        self.nursery = nursery
        """For work beside the run; cancelled when the run has ended."""
        self.account: Account | None = None
        """What its runs are booked as, once they may start."""
        self._on_progress = on_progress
        self._is_ending = False
        self._mail_handlers: dict[str, OnMail] = {}
        self._unhandled: dict[str, list[Mail]] = {}
        self._tell_event = tell
        self.questions = Questions(owned, self.tell, on_question=self._notify)
        self.on_mail(ANSWER_MAIL, Answer, self.questions.take_answer)
        self.messages = Messages(owned)
        self.on_mail(MESSAGE_MAIL, MessageBody, self.messages.take)
        self.cancel = cancel
        """Ends the work on behalf of the caller that its argument names."""
        self.interrupt = cancel
        """Ends the work so that what was said is kept; takes who wants it. Replaced by work that
        can be interrupted."""
        self.on_mail(KEEP_MAIL, Keep, self._keep)

    @property
    def tree_ended(self) -> bool:
        """No process of it is left."""
        return all(child.ended for child in (*self.children, *self.helpers))

    def on_mail(self, kind: str, body: type[T], handle: Callable[[Mail, T], object]) -> None:
        """Handle the messages of one kind, those first that came before now.

        Args:
            kind: As its sender says.
            body: What to decode from each; a message with another body is ignored.
            handle: Must not wait. It answers in the job's record (`Ownership.note`).
        """
        decoder = msgspec.json.Decoder(body)

        def decode_and_handle(mail: Mail) -> None:
            try:
                decoded = decoder.decode(mail.body)
            except msgspec.DecodeError:  # Another version's.
                return
            handle(mail, decoded)

        self._mail_handlers[kind] = decode_and_handle
        for mail in self._unhandled.pop(kind, ()):
            decode_and_handle(mail)

    def take_mail(self, mail: Mail) -> None:
        """Give a message to its handler, or keep it until there is one."""
        if (handle := self._mail_handlers.get(mail.kind)) is not None:
            handle(mail)
        else:
            self._unhandled.setdefault(mail.kind, []).append(mail)

    def tell(self, progress: Progress) -> None:
        """Record progress, and pass it on, without keys."""
        masked = msgspec.structs.replace(progress, message=mask(progress.message))
        progress = with_agent(self.owned.job.agent, masked, self.owned.run_s)
        self.owned.report(progress.message)
        self._on_progress(progress)

    def _notify(self, question: Question) -> None:
        if self._tell_event is not ignore_event:
            event = question_event(self.owned.job, question)
            self.nursery.start_soon(
                partial(in_own_thread, self._tell_event, event, abandon_on_cancel=True)
            )

    def _keep(self, _mail: Mail, keep: Keep) -> None:
        # Should this process be killed on the way, the job was cancelled, not lost.
        self.nursery.start_soon(self.owned.note_cancelled, keep.by)
        self.mark_ending()
        self.interrupt(keep.by)

    def mark_ending(self) -> None:
        """Note that processes of the run are about to be ended, by us or by the guard."""
        if not self._is_ending:
            self._is_ending = True
            self.nursery.start_soon(self.owned.mark_ending)

    async def go_on(self) -> None:
        """Note that further processes of the run are about to start; none is left of those before.

        Else what is started inside them would be taken for ending with them.
        """
        if self._is_ending:
            self._is_ending = False
            await self.owned.unmark_ending()


Work = Callable[[JobRun], Awaitable[DispatchResult]]
"""Does what a job stands for; if cancelled, it ends all that it started."""


async def run_job(
    owned: Ownership,
    work: Work,
    on_progress: OnProgress,
    *,
    on_behalf_of: str,
    beside: Callable[[], Awaitable[object]] | None = None,
    tell: TellEvent = ignore_event,
) -> DispatchResult:
    """Do the work of the job that `owned` stands for, and record how it ended.

    If cancelled, no process of the work is left and the record is terminal when `Cancelled` leaves
    this call; if this process is killed on the way there, the next reader of the record makes it
    so. A cancellation by another process is not `Cancelled` but a result.

    Args:
        owned: The job.
        work: What to do.
        on_progress: Gets what the record gets.
        on_behalf_of: Who cancels it if this call is cancelled, for the end of a sentence.
        beside: Something to do meanwhile. It must not raise, which would end the work, and is cut
            off when the work is done.
        tell: Told of permission questions, and of the end of a background job.

    Raises:
        DispatchError: The request is wrong, or nothing can be started; recorded, too.
    """
    cancelling = _Cancelling(owned, on_behalf_of)
    failure: DispatchError | None = None
    result: DispatchResult | None = None
    run: JobRun | None = None
    try:
        async with trio.open_nursery() as nursery:
            run = JobRun(owned, nursery, on_progress, cancelling.cancel, tell)
            run.tell(started_line(owned.job.id))
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
        said = f"Bug in agent-dispatch: {bug!r}. Please report it."
        result = refused(owned.job.agent, said)
        raise
    finally:
        if result is None:
            result = (nothing_begun(owned) if run is None else run.cancelled)(cancelling.by)
        # The steps have bounds of their own, of 2, 20, 20 and 10 seconds.
        with trio.CancelScope(shield=True):
            if not result.success and await owned.ends_with_its_parent():
                result = _with_parent(result, owned.job.parent)
            if run is not None and run.account is not None:
                result = await run.account.settle(result)
            finished = await owned.finish(result, tree_ended=run is None or run.tree_ended)
            if owned.job.kind is not JobKind.CALL and tell is not ignore_event:
                # The record is there, and nobody waits for this.
                await in_own_thread(tell, end_event(finished.job))
    if failure is not None:
        raise failure
    return _answer(finished, owned.job.id, result)


class _Cancelling:
    """The ways in which a job's run can be told to end before its time."""

    def __init__(self, owned: Ownership, on_behalf_of: str) -> None:
        self._owned = owned
        self.scope = trio.CancelScope()
        self.by = on_behalf_of
        self.over = False

    def cancel(self, by: str) -> None:
        """End the run on behalf of `by`."""
        self.by = by
        self.scope.cancel()

    async def listen(self, on_mail: OnMail) -> NoReturn:
        """End the run when another process asks for it, and say why if anything else ends it.

        Until then, hand over the job's mail.

        A server that leaves does not wait for its agents to end: the guards see to that. The note
        lets the next reader record a cancelled job, not a lost one.
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
                    await self._owned.note_cancelled(self.by)


def nothing_begun(owned: Ownership) -> CancelledBy:
    """Say what came of a job that was cancelled before anything was started for it."""

    def cancelled(by: str) -> DispatchResult:
        no_session = NextStep(kind=StepKind.RESUME, agent=owned.job.agent)
        return refused(owned.job.agent, f"Cancelled by {by}.", ErrorType.CANCELLED, (no_session,))

    return cancelled


def _with_parent(result: DispatchResult, parent: str | None) -> DispatchResult:
    """Say that a run was ended with the run around it; its own text may blame the run itself."""
    return msgspec.structs.replace(
        result,
        error=f"Cancelled with the dispatch that started it (job {parent}), which ended.",
        error_type=ErrorType.CANCELLED,
        next_steps=[s for s in result.next_steps or () if s.kind is StepKind.RESUME] or None,
    )


def _answer(finished: Finished, job_id: str, result: DispatchResult) -> DispatchResult:
    """The result as it was recorded; or, if it was not, whole and with a remark."""
    if finished.problem is None:
        return finished.job.result or msgspec.structs.replace(result, job_id=job_id)
    remark = f"The answer could not be recorded, so it cannot be fetched again: {finished.problem}"
    # Without the id: a surface must not cut what is nowhere else.
    return msgspec.structs.replace(
        result, job_id=None, hint=" ".join(filter(None, (result.hint, remark)))
    )
