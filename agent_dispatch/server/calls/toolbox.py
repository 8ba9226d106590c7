"""What a tool is, and what one call of it answers; knows nothing of the MCP library.

A tool is declared once as a `Tool`: its struct gives the schema, its function the answer. Whatever
can go wrong with a call becomes an answer here, so nothing a client sends can end the server.
"""

import hashlib
import logging
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Generic, TypeVar

import msgspec
import trio

from agent_dispatch.core.agents.rights import WideningError
from agent_dispatch.core.next_step import worded_error
from agent_dispatch.core.request.arguments import ArgumentDecoder, nearest_name
from agent_dispatch.core.text import scrubbed
from agent_dispatch.errors import DispatchError
from agent_dispatch.model.config import Settings
from agent_dispatch.model.dispatch import OnProgress, Progress, ignore_progress
from agent_dispatch.model.job import Job
from agent_dispatch.model.next_step import NextStep, StepKind
from agent_dispatch.model.replies import ResultRef, StillRunning
from agent_dispatch.run.service import Service
from agent_dispatch.server.calls.client_limits import patience_s
from agent_dispatch.server.calls.form_texts import widening_text
from agent_dispatch.server.calls.forms import Asks, State, follow, give_answers
from agent_dispatch.server.calls.pending import Caller, Early, Ongoing, ShowsForms, TaskWish
from agent_dispatch.server.calls.progress import Report, report_progress
from agent_dispatch.server.next_steps import in_tools
from agent_dispatch.server.tools.schema import input_schema

logger = logging.getLogger(__name__)

ParamsT = TypeVar("ParamsT", bound=msgspec.Struct)

_WIDEN = "widen"
"""The key of the form that asks for more rights."""
_HINT_DEFAULTS: Mapping[str, bool] = {
    "readOnlyHint": False,
    "destructiveHint": True,
    "idempotentHint": False,
    "openWorldHint": True,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool(Generic[ParamsT]):
    """One tool: what the client is told of it, and what runs."""

    name: str
    title: str
    description: str
    params: type[ParamsT]
    """Its arguments; field descriptions are `Annotated[..., msgspec.Meta(description=...)]`."""
    run: Callable[[Service, ParamsT, OnProgress], Awaitable[object]]
    described: type[msgspec.Struct] | None = None
    """Arguments of the tool that describes those that both have, as `description` says."""
    read_only: bool = False
    """Claude Code runs only read-only tools in parallel (measured with 2.1.330)."""
    destructive: bool = False
    idempotent: bool = False
    open_world: bool = False
    reports_progress: bool = False
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    """Arguments that only other tools take, and what to say of each."""
    creates_config: bool = False
    """Works although the configuration that the environment names does not exist yet."""
    waits: bool = False
    """It waits for an agent, so its caller may leave before the answer is there."""
    detached: Callable[[Service, ParamsT, OnProgress], Awaitable[object]] | None = None
    """Does what `run` does as a background job, which goes on if the wait is cancelled."""
    joint: Callable[[ParamsT], Sequence[str]] | None = None
    """The agents of such a job, if they are several: one worker has to reach them all."""
    granted: Callable[[Service, ParamsT, OnProgress], Awaitable[object]] | None = None
    """Does what `run` does when a person has accepted that it gives an agent more rights."""
    within: Callable[[ParamsT, float], ParamsT] | None = None
    """Bounds the call's own wait by a number of seconds."""
    max_result_chars: int | None = None
    """Up to this size the client should show a result whole (Claude Code: 50,000 by itself)."""

    @property
    def may_be_task(self) -> bool:
        """Whether a call of it can become a task."""
        return self.detached is not None

    def listing(self) -> dict[str, Any]:
        """Its entry in `tools/list`, as it is on the wire."""
        # Claude Code defers the tools of a server behind a search unless told otherwise.
        meta: dict[str, Any] = {"anthropic/alwaysLoad": True}
        if self.max_result_chars is not None:
            meta["anthropic/maxResultSizeChars"] = self.max_result_chars
        return {
            "name": self.name,
            "title": self.title,
            "description": self.description,
            "inputSchema": input_schema(self.params, self.described),
            "annotations": self._annotations(),
            **({"execution": {"taskSupport": "optional"}} if self.may_be_task else {}),
            "_meta": meta,
        }

    def _annotations(self) -> dict[str, bool]:
        """What differs from the defaults of the MCP specification; nobody pays for the rest."""
        hints = {"readOnlyHint": self.read_only, "openWorldHint": self.open_world}
        if not self.read_only:  # They mean nothing there.
            hints |= {"destructiveHint": self.destructive, "idempotentHint": self.idempotent}
        return {hint: value for hint, value in hints.items() if value is not _HINT_DEFAULTS[hint]}


@dataclass(frozen=True, slots=True)
class Answer:
    """What one call answers."""

    text: str
    """JSON."""
    structured: dict[str, Any] | None = None
    """The same as an object, which Claude Code shows its model instead of the text."""
    is_error: bool = False
    warnings: Sequence[str] = ()
    """What there is to say beside a list, which itself has no place for it."""
    ref: str | None = None
    """The job whose result can be read as a resource, where the answer only refers to it."""
    task_id: str | None = None
    """The job that goes on as a task, which is all that there is to say."""
    asks: Asks | None = None
    """What the client's user is to be asked before there is an answer."""


@dataclass(frozen=True, slots=True)
class WithWarnings:
    """A list that a tool answers, and what was passed over for it."""

    items: Sequence[object]
    warnings: Sequence[str]


class Toolbox:
    """All tools over one service."""

    def __init__(self, service: Service | DispatchError, tools: Sequence[Tool[Any]]) -> None:
        """Offer `tools`, in this order; without a service each call answers why there is none."""
        self._service = service
        self._tools = {tool.name: tool for tool in tools}
        self._decoders = {
            tool.name: ArgumentDecoder(tool.name, tool.params, tool.elsewhere) for tool in tools
        }

    def may_be_task(self, name: str) -> bool:
        """Whether a call of the tool of that name can become a task."""
        tool = self._tools.get(name)
        return tool is not None and tool.may_be_task

    def listing(self) -> list[dict[str, Any]]:
        """The tools as `tools/list` shows them."""
        return [tool.listing() for tool in self._tools.values()]

    async def call(
        self,
        name: str,
        arguments: object,
        report: Report,
        caller: Caller | None = None,
        ongoing: Ongoing | None = None,
    ) -> Answer:
        """Run one tool; whatever happens but cancellation is an answer.

        Args:
            name: As the client wrote it.
            arguments: As the client sent them, of any shape.
            report: Sends one progress message; waits as long as the client takes.
            caller: Who calls.
            ongoing: Where work is done that goes on when its caller leaves; None: it ends then.
        """
        try:
            return await self._call(name, arguments, report, caller or Caller(), ongoing)
        except BaseExceptionGroup as group:
            failure = group
        # The MCP library takes a plain `Cancelled` for a cancellation, but not a group of them.
        await trio.lowlevel.checkpoint_if_cancelled()
        raise failure

    async def _call(
        self,
        name: str,
        arguments: object,
        report: Report,
        caller: Caller,
        ongoing: Ongoing | None,
    ) -> Answer:
        tool = self._tools.get(name)
        if tool is None:
            known = ", ".join(self._tools)
            hint = nearest_name(name, self._tools)
            return refusal(f"Unknown tool: {name[:60]!r}{hint}. Available: {known}")
        try:
            params = self._decoders[name].decode(arguments)
        except DispatchError as error:
            return refusal(worded_error(error, in_tools))
        if not tool.reports_progress:
            return await self._answer(tool, params, ignore_progress, caller, ongoing)
        async with report_progress(report, tool.title) as on_progress:
            return await self._answer(tool, params, on_progress, caller, ongoing)

    async def _answer(
        self,
        tool: Tool[ParamsT],
        params: ParamsT,
        on_progress: OnProgress,
        caller: Caller,
        ongoing: Ongoing | None,
    ) -> Answer:
        try:
            if isinstance(self._service, DispatchError):
                return refusal(worded_error(self._service, in_tools))
            if not tool.creates_config:
                await self._service.require_config()
            result = await _run(tool, self._service, params, on_progress, caller, ongoing)
            return answered(result)
        except DispatchError as error:
            return refusal(worded_error(error, in_tools))
        except Exception as error:
            _log_bug(tool.name, error)
            return refusal(
                f"Bug in agent-dispatch: {tool.name} failed with {type(error).__name__}: {error}."
                " Whether it took effect is not known. The traceback is in the server's log"
                " (stderr of `agent-dispatch serve`); please report it."
            )
        except BaseExceptionGroup as group:
            # A nursery that was cancelled while something in it failed.
            _, bugs = group.split(trio.Cancelled)
            if isinstance(bugs, ExceptionGroup):
                _log_bug(tool.name, bugs)
            raise


async def _run(
    tool: Tool[ParamsT],
    service: Service,
    params: ParamsT,
    on_progress: OnProgress,
    caller: Caller,
    ongoing: Ongoing | None,
) -> object:
    """Run a tool; its client gets an answer, or a task, before its patience ends."""
    if not tool.waits and tool.within is None:
        return await _run_alone(tool, service, params, on_progress, caller)
    detached = None if ongoing is None else tool.detached
    if tool.joint is not None and not await service.are_local(tool.joint(params)):
        detached = None
    wish = caller.task if detached is not None else TaskWish.NONE
    until = await _answer_until(service, caller, wish)
    if tool.within is not None and until < math.inf:
        params = tool.within(params, max(until - trio.current_time(), 0))
    if not tool.waits or ongoing is None:
        return await _run_alone(tool, service, params, on_progress, caller)
    key = _key(tool, params)
    by_retry = await _asks_by_retry(detached, service, caller)
    if caller.response is not None:
        state = caller.response.state_of(key)
        await give_answers(service, state.job_id, caller.response.actions)
        caller.asked = frozenset(state.asked)
        early: object = Early(state.job_id)
    elif detached is None or (until == math.inf and not by_retry):
        work = partial(tool.run, service, params)
        return await ongoing.wait(key, work, on_progress, caller)
    else:
        work = partial(detached, service, params)
        early = await ongoing.wait(key, work, on_progress, caller, detached=True, until=until)
    if not isinstance(early, Early) or caller.task is not TaskWish.NONE:
        return early
    if not by_retry and caller.response is None:
        return still_running(await service.job(early.job_id))
    answer = await follow(service, ongoing, key, early.job_id, on_progress, caller, until=until)
    return still_running(answer) if isinstance(answer, Job) else answer


async def _asks_by_retry(detached: object, service: Service, caller: Caller) -> bool:
    """Whether the answer of a call may be a question, so that its run has to outlive the call."""
    can = caller.shows_forms is ShowsForms.BY_RETRY and caller.task is TaskWish.NONE
    return can and detached is not None and await service.may_ask()


async def _run_alone(
    tool: Tool[ParamsT],
    service: Service,
    params: ParamsT,
    on_progress: OnProgress,
    caller: Caller,
) -> object:
    """Run a tool that starts no work; if it gives more rights, a person is asked first."""
    key = _key(tool, params)
    response, show = caller.response, caller.show
    if response is not None:
        response.state_of(key)

    def report(progress: Progress) -> None:
        on_progress(progress)
        if show is not None:
            show(progress)

    try:
        return await tool.run(service, params, report)
    except WideningError as refused:
        if tool.granted is None or refused.is_nested:
            raise
        error = refused
    if response is not None:
        accepted = response.actions.get(_WIDEN) == "accept"
    elif caller.shows_forms is ShowsForms.BY_RETRY:
        return Asks({_WIDEN: widening_text(error)}, State(call=key.hex()).encode())
    else:
        accepted = caller.accepts is not None and await caller.accepts(error)
    if not accepted:
        raise error
    return await tool.granted(service, params, on_progress)


async def _answer_until(service: Service, caller: Caller, wish: TaskWish) -> float:
    """Return when the answer to a call is due, on Trio's clock."""
    try:
        settings = await service.settings()
    except DispatchError:
        settings = Settings()  # The tool says what is wrong, if it matters to it.
    patience = patience_s(settings.patience_seconds, caller.client)
    until = math.inf if patience is None else caller.arrived_at + patience
    match wish:
        case TaskWish.AT_ONCE:
            return -math.inf
        case TaskWish.IF_LONG:
            # Loading takes of the client's patience, but a task is for agents that take long.
            return min(until, trio.current_time() + settings.task_after_seconds)
        case TaskWish.NONE:
            return until


def still_running(job: Job) -> StillRunning:
    """Return the answer to a call whose job goes on."""
    wait = NextStep(kind=StepKind.WAIT, job_id=job.id)
    return StillRunning(
        status="running",
        job_id=job.id,
        agent=None if job.agents else job.agent,
        agents=job.agents,
        next=in_tools(wait),
    )


def _key(tool: Tool[ParamsT], params: ParamsT) -> bytes:
    """Return what two calls have in common that ask for the same."""
    _, text = encode(params)
    return hashlib.blake2b(f"{tool.name} {text}".encode(), digest_size=32).digest()


def refusal(message: str) -> Answer:
    """The envelope of a call that is wrong."""
    text = msgspec.json.encode({"error": scrubbed(message)}).decode()
    return Answer(text, is_error=True)


def answered(result: object) -> Answer:
    """The envelope of what a tool answered."""
    match result:
        case Early(job_id):
            return Answer("", task_id=job_id)
        case Asks():
            return Answer("", asks=result)
        case WithWarnings(items, warnings):
            return replace(_success(items), warnings=scrubbed(list(warnings)))
        case ResultRef(ref=ref):
            return replace(_success(result), ref=ref)
        case _:
            return _success(result)


def _success(result: object) -> Answer:
    plain, text = encode(result)
    return Answer(text, plain if isinstance(plain, dict) else None)


def encode(result: object) -> tuple[object, str]:
    """Return a result as plain values and as JSON."""
    plain = msgspec.to_builtins(result)
    try:
        return plain, msgspec.json.encode(plain).decode()
    except UnicodeEncodeError:
        plain = scrubbed(plain)
        return plain, msgspec.json.encode(plain).decode()


def _log_bug(tool: str, error: Exception) -> None:
    logger.error("bug in agent-dispatch: %s failed", tool, exc_info=error)
