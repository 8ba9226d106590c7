"""Permission questions of a running job: shown to people, and answered to the agent.

A question is in the job's record, where every surface and every process finds it. Every answer
comes by the job's mailbox. While a question is open, the clock of its turn is paused. A model
cannot answer: no tool of ours sends such mail.
"""

import contextlib
import time
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager

import msgspec
import trio

from agent_dispatch.claude.child import Child
from agent_dispatch.claude.conversation import say
from agent_dispatch.core.stream.events import ControlRequestEvent
from agent_dispatch.core.stream.stdin import (
    DENIED_BY_PERSON,
    NOBODY_THERE,
    NOT_TO_BE_SHOWN,
    allowance_line,
    denial_line,
    refusal_line,
)
from agent_dispatch.jobs.owner import Ownership
from agent_dispatch.jobs.record_format import too_deep
from agent_dispatch.model.dispatch import OnProgress, Progress
from agent_dispatch.model.question import (
    Answer,
    AnsweredBy,
    PastQuestion,
    Question,
    Verdict,
    closed,
    same_input,
)

_MAX_OPEN = 100
_MAX_INPUT_BYTES = 4 << 20
_MAX_RECORDED_BYTES = 16 << 20
"""Of all inputs of one job: its record holds them, and each question writes it again."""

_SAID = {
    Verdict.ALLOW: "given",
    Verdict.DENY: "denied",
    Verdict.UNANSWERED: "denied, because nobody answered",
    Verdict.WITHDRAWN: "no longer needed",
}


class _OpenQuestion:
    """One question, from the agent's request to our reply."""

    def __init__(
        self,
        question: Question,
        request: ControlRequestEvent,
        child: Child,
        note: Callable[[Verdict], object],
    ) -> None:
        self.question = question
        self.note = note
        self.request = request
        self.child = child
        self.verdict: Verdict | None = None
        self.decided = trio.Event()
        self.pause = contextlib.ExitStack()


class Questions:
    """The questions of one job; made with its `JobRun`."""

    def __init__(
        self,
        owned: Ownership,
        report: OnProgress,
        *,
        on_question: Callable[[Question], object],
    ) -> None:
        """Record questions in the job of `owned`, and report them as progress.

        Args:
            report: Gets a line for each change.
            on_question: Gets each question that a person is asked; must not wait.
        """
        self._owned = owned
        self._report_progress = report
        self._on_question = on_question
        self._open: list[_OpenQuestion] = []
        self._past: list[PastQuestion] = []
        self._recorded_bytes = 0
        self._allow_once = owned.job.allow_once

    def ask(
        self,
        child: Child,
        request: ControlRequestEvent,
        agent: str,
        *,
        patience_s: float | None,
        pause: AbstractContextManager[object],
        note: Callable[[Verdict], object],
    ) -> None:
        """Take a permission request of `child`, and answer it later. Returns at once.

        Args:
            child: The claude that asks.
            patience_s: How long the question waits for a person; None: nobody is asked.
            pause: Entered while the question is open; stops the clock of the turn.
            note: Gets the verdict.
        """
        call = request.request
        allowed = self._allow_once
        if (
            allowed is not None
            and call.tool_name == allowed.tool
            and same_input(call.input, allowed.input)
        ):
            self._allow_once = None
            self._past.append(msgspec.structs.replace(allowed, asked_at=time.time(), agent=agent))
            self._record()
            child.start_soon(say, child, allowance_line(request))
        elif patience_s is None:
            child.start_soon(say, child, refusal_line(request))
        elif not self._reserve_room(call.input):
            child.start_soon(say, child, denial_line(request, NOT_TO_BE_SHOWN))
        else:
            question = Question(
                id=uuid.uuid4().hex[:12],
                tool=call.tool_name,
                input=call.input,
                asked_at=time.time(),
                agent=agent,
            )
            entry = _OpenQuestion(question, request, child, note)
            entry.pause.enter_context(pause)
            self._open.append(entry)
            self._record()
            self._report(f"Waiting for permission: {call.tool_name}")
            self._on_question(question)
            child.start_soon(self._wait_for_answer, entry, patience_s)

    def _reserve_room(self, given: object) -> bool:
        """Reserve room in the record for the input of a call; False if there is too little."""
        if too_deep(given):
            return False
        size = len(msgspec.json.encode(given))
        has_room = (
            len(self._open) < _MAX_OPEN
            and size <= _MAX_INPUT_BYTES
            and self._recorded_bytes + size <= _MAX_RECORDED_BYTES
        )
        self._recorded_bytes += size if has_room else 0
        return has_room

    def withdraw(self, child: Child, request_id: str) -> None:
        """Close a question that `child` has withdrawn. Returns at once."""
        for entry in list(self._open):
            if entry.child is child and entry.request.request_id == request_id:
                self._close(entry, Verdict.WITHDRAWN)

    def take_answer(self, answer: Answer) -> None:
        """Close the question that was answered; the first answer counts."""
        for entry in list(self._open):
            if entry.question.id == answer.question and answer.answer.is_answer:
                self._close(entry, answer.answer, answer.answered_by, time.time())

    async def _wait_for_answer(self, entry: _OpenQuestion, patience_s: float) -> None:
        """Wait for the answer and pass it on; if cancelled, withdraw the question."""
        try:
            with trio.move_on_after(patience_s):
                await entry.decided.wait()
            if entry.verdict is None:
                self._close(entry, Verdict.UNANSWERED)
        finally:
            if entry.verdict is None:
                self._close(entry, Verdict.WITHDRAWN)
        match entry.verdict:
            case Verdict.ALLOW:
                await say(entry.child, allowance_line(entry.request))
            case Verdict.DENY:
                await say(entry.child, denial_line(entry.request, DENIED_BY_PERSON))
            case Verdict.UNANSWERED:
                await say(entry.child, denial_line(entry.request, NOBODY_THERE))
            case Verdict.WITHDRAWN | None:
                pass

    def _close(
        self,
        entry: _OpenQuestion,
        verdict: Verdict,
        by: AnsweredBy | None = None,
        at: float | None = None,
    ) -> None:
        self._open.remove(entry)
        self._past.append(closed(entry.question, verdict, by, at))
        entry.verdict = verdict
        entry.note(verdict)
        entry.decided.set()
        entry.pause.close()
        self._record()
        self._report(f"Permission {_SAID[verdict]}: {entry.question.tool}")

    def _report(self, message: str) -> None:
        waiting = tuple(entry.question for entry in self._open)
        self._report_progress(Progress(message, self._owned.job.id, questions=waiting))

    def _record(self) -> None:
        waiting = [entry.question for entry in self._open]
        self._owned.note(
            question=waiting[0] if waiting else None,
            later_questions=waiting[1:] or None,
            questions=list(self._past) or None,
        )
