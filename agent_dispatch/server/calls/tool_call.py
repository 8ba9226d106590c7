"""One call of a tool: when its answer is due, and what happens to its work until then."""

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Generic

import trio

from agent_dispatch.core.agents.rights import WideningError
from agent_dispatch.errors import DispatchError
from agent_dispatch.model.config import Settings
from agent_dispatch.model.dispatch import OnProgress, Progress
from agent_dispatch.model.job import Job
from agent_dispatch.model.next_step import NextStep, StepKind
from agent_dispatch.model.question import AnsweredBy
from agent_dispatch.model.replies import StillRunning
from agent_dispatch.run.service import Service
from agent_dispatch.server.calls.caller import Caller, FormMode, TaskMode
from agent_dispatch.server.calls.client_limits import patience_s
from agent_dispatch.server.calls.envelope import encode
from agent_dispatch.server.calls.forms import (
    ACCEPT,
    FormRequest,
    RetryState,
    pass_on,
    question_text,
    widening_text,
)
from agent_dispatch.server.calls.pending import InBackground, PendingCalls
from agent_dispatch.server.inline.job import answer_of
from agent_dispatch.server.next_steps import in_tools
from agent_dispatch.server.tools.tool import ParamsT, Run, Tool

_WIDENING = "widen"
"""The key of the form that asks for more rights."""


@dataclass(eq=False)
class ToolCall(Generic[ParamsT]):
    """One call of a tool, with arguments that have been checked."""

    tool: Tool[ParamsT]
    params: ParamsT
    service: Service
    pending: PendingCalls
    """Does work that may go on when the caller leaves."""
    caller: Caller
    on_progress: OnProgress
    """Gets progress for the client."""

    async def run(self) -> object:
        """Run the tool and return its answer.

        A tool that waits for an agent answers before the client's patience ends, if need be with
        `StillRunning` (for the model), `InBackground` (a task) or a `FormRequest`. Its work may
        outlive the call.

        Raises:
            DispatchError: Whatever the tool raised.
        """
        tool, caller, pending = self.tool, self.caller, self.pending
        if tool.run_detached is None:
            return await self._run_here()
        can_detach = tool.agents_of is None or await self.service.are_local(
            tool.agents_of(self.params)
        )
        due_at = await self._due_at(caller.task_mode if can_detach else TaskMode.NEVER)
        by_retry = can_detach and await self._may_ask_by_retry()
        answer: object
        if caller.response is not None:
            state = caller.response.state_of(self._key)
            actions = caller.response.actions
            await pass_on(self.service, state.job_id, actions, AnsweredBy.ELICITATION)
            caller.seen_questions = frozenset(state.asked)
            answer = InBackground(state.job_id)
        elif can_detach and (due_at < math.inf or by_retry):
            work = partial(tool.run_detached, self.service, self.params)
            answer = await pending.wait(
                self._key, work, self.on_progress, caller, detached=True, due_at=due_at
            )
        else:
            work = partial(tool.run, self.service, self.params)
            answer = await pending.wait(self._key, work, self.on_progress, caller)
        if not isinstance(answer, InBackground) or caller.task_mode is not TaskMode.NEVER:
            return answer
        if by_retry or caller.response is not None:
            return await self._follow(answer.job_id, due_at)
        return _still_running(await self.service.jobs.get(answer.job_id))

    async def _run_here(self) -> object:
        """Run a tool that starts no agent; if it gives more rights, the user is asked first."""
        params = self.params
        if self.tool.wait_at_most is not None:
            due_at = await self._due_at(TaskMode.NEVER)
            if due_at < math.inf:
                left_s = max(due_at - trio.current_time(), 0)
                params = self.tool.wait_at_most(params, left_s)
        show_questions = self.caller.show_questions

        def report(progress: Progress) -> None:
            self.on_progress(progress)
            if show_questions is not None:
                show_questions(progress)

        if self.caller.response is not None:
            self.caller.response.state_of(self._key)  # Refuses a response to another call.
        try:
            return await self.tool.run(self.service, params, report)
        except WideningError as error:
            if self.tool.run_granted is None or error.is_nested:
                raise
            refused = error
        return await self._ask_to_widen(refused, self.tool.run_granted)

    async def _ask_to_widen(self, refused: WideningError, run_granted: Run[ParamsT]) -> object:
        """Make a change that gives more rights if the user accepts it.

        Raises:
            WideningError: The user does not, or cannot be asked.
        """
        caller = self.caller
        if caller.response is not None:
            accepted = caller.response.actions.get(_WIDENING) == ACCEPT
        elif caller.form_mode is FormMode.BY_RETRY:
            state = RetryState(call=self._key.hex())
            return FormRequest({_WIDENING: widening_text(refused)}, state.encode())
        else:
            confirm = caller.confirm_widening
            accepted = confirm is not None and await confirm(refused)
        if not accepted:
            raise refused
        return await run_granted(self.service, self.params, self.on_progress)

    async def _follow(self, job_id: str, due_at: float) -> object:
        """Wait until a job ends, or has a question that the user has not seen, or time is up."""

        async def wait(report: OnProgress) -> object:
            report(Progress(f"Job {job_id}", job_id))
            return answer_of(await self.service.jobs.wait(job_id, math.inf, report))

        caller = self.caller
        while True:
            job: Job = await self.service.jobs.get(job_id)
            if job.status.is_terminal:
                return answer_of(job)
            seen = caller.seen_questions
            new = {q.id: question_text(q) for q in job.open_questions if q.id not in seen}
            if new:
                state = RetryState(call=self._key.hex(), job_id=job_id, asked=(*seen, *new))
                return FormRequest(new, state.encode())
            if trio.current_time() >= due_at:
                return _still_running(job)
            key = b"job " + job_id.encode()
            answer = await self.pending.wait(
                key, wait, self.on_progress, caller, detached=True, due_at=due_at
            )
            if not isinstance(answer, InBackground):
                return answer

    async def _may_ask_by_retry(self) -> bool:
        """Whether the answer may be a question, so that the work must outlive the call."""
        caller = self.caller
        can_ask = caller.form_mode is FormMode.BY_RETRY and caller.task_mode is TaskMode.NEVER
        return can_ask and await self.service.may_ask()

    async def _due_at(self, task_mode: TaskMode) -> float:
        """Return when the answer is due, on Trio's clock."""
        try:
            settings = await self.service.settings()
        except DispatchError:
            settings = Settings()  # A tool that needs the settings reports the error.
        patience = patience_s(settings.patience_seconds, self.caller.client)
        due_at = math.inf if patience is None else self.caller.arrived_at + patience
        match task_mode:
            case TaskMode.ALWAYS:
                return -math.inf
            case TaskMode.IF_LONG:
                # Counted from now: only agents that take long become tasks, not a slow start.
                return min(due_at, trio.current_time() + settings.task_after_seconds)
            case TaskMode.NEVER:
                return due_at

    @cached_property
    def _key(self) -> bytes:
        """The same for identical calls."""
        _, text = encode(self.params)
        return hashlib.blake2b(f"{self.tool.name} {text}".encode(), digest_size=32).digest()


def _still_running(job: Job) -> StillRunning:
    """Return the answer to a call whose job goes on."""
    wait = NextStep(kind=StepKind.WAIT, job_id=job.id)
    return StillRunning(
        status="running",
        job_id=job.id,
        agent=None if job.agents else job.agent,
        agents=job.agents,
        next=in_tools(wait),
    )
