"""Dispatches that a person attends, with live progress and signals, and unattended ones."""

import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

import trio

from agent_dispatch.cli.run.progress import ProgressView, Style
from agent_dispatch.cli.run.terminal_questions import AskHere, make_asker
from agent_dispatch.cli.shell import Shell
from agent_dispatch.errors import DispatchError
from agent_dispatch.model.dispatch import DispatchRequest, OnProgress, Progress
from agent_dispatch.model.job import Job
from agent_dispatch.model.question import AnsweredBy, Verdict

if TYPE_CHECKING:
    from agent_dispatch.claude.fork_server import ForkServer
    from agent_dispatch.run.service import Service

T = TypeVar("T")

LEAVE_WITHIN_S = 5.0
"""How long to wait for the end of the agent's processes; their guard ends them in any case."""

_ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Attended(NamedTuple, Generic[T]):
    """How the work ended."""

    value: T | None
    """What came of it; None if a signal ended it."""
    signum: signal.Signals | None = None
    """The signal that ended it; None if it ended by itself."""


MakeAsker = Callable[[Callable[[], AbstractContextManager[object]]], AskHere | None]
Work = Callable[["Service", OnProgress], Awaitable[T]]


def attend(
    shell: Shell,
    fork_server: "ForkServer",
    work: Work[T],
    style: Style,
    *,
    environ: Mapping[str, str] | None = None,
    claude: Sequence[str] | None = None,
    asks_here: bool = False,
) -> Attended[T]:
    """Do `work` to its end, or to SIGINT, SIGTERM or SIGHUP.

    A signal cancels it, and this call returns when the agents' processes are gone. After
    `LEAVE_WITHIN_S`, or on a second signal, this process exits at once: the guards of the runs see
    that and end them.

    Args:
        shell: The outside world.
        fork_server: Started before Trio was.
        work: What to do with the service.
        style: How progress is shown on stderr.
        environ: The environment of the service; the shell's if not given.
        claude: The program to run instead of `claude`.
        asks_here: Permission questions are asked on the terminal, if there is one.

    Raises:
        DispatchError: The call was refused.
    """
    service = shell.open_service(
        environ=shell.environ if environ is None else environ,
        fork_server=fork_server,
        claude=claude,
    )
    asks = partial(make_asker, shell) if asks_here else None
    outcome = trio.run(_attend, service, work, partial(ProgressView, shell.stderr, style), asks)
    if isinstance(outcome, DispatchError):
        raise outcome
    return outcome


def submit(shell: Shell, fork_server: "ForkServer", request: DispatchRequest) -> Job:
    """Start a background job; it goes on without us.

    Args:
        shell: The outside world.
        fork_server: Started before Trio was.
        request: What is asked of which agent.

    Raises:
        DispatchError: It was refused, or cannot be started.
    """
    return unattended(shell, fork_server, lambda service: service.submit(request))


def unattended(
    shell: Shell, fork_server: "ForkServer", work: Callable[["Service"], Awaitable[T]]
) -> T:
    """Do something with the service that takes a moment.

    Raises:
        DispatchError: It was refused.
    """
    service = shell.open_service(environ=shell.environ, fork_server=fork_server)
    outcome = trio.run(_unattended, service, work)
    if isinstance(outcome, DispatchError):
        raise outcome
    return outcome


async def _unattended(
    opening: "AbstractAsyncContextManager[Service]", work: Callable[["Service"], Awaitable[T]]
) -> T | DispatchError:
    try:
        async with opening as service:
            return await work(service)
    except DispatchError as error:
        return error


async def _attend(
    opening: "AbstractAsyncContextManager[Service]",
    work: Work[T],
    make_view: Callable[[], ProgressView],
    make_asker: MakeAsker | None,
) -> Attended[T] | DispatchError:
    view = make_view()
    asker = None if make_asker is None else make_asker(view.silent)

    def on_progress(progress: Progress) -> None:
        view.on_progress(progress)
        if asker is not None:
            asker.on_progress(progress)

    async def work_and_ask(service: "Service") -> T:
        if asker is None:
            return await work(service, on_progress)

        async def give(job_id: str, verdict: Verdict, question_id: str) -> object:
            return await service.answer(job_id, verdict, AnsweredBy.TERMINAL, question_id)

        failure: DispatchError | None = None
        results: list[T] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(asker.ask, give)
            try:
                results.append(await work(service, on_progress))
            except DispatchError as error:
                failure = error  # Raised outside the nursery, which would wrap it in a group.
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        return results[0]

    async def in_service() -> T | DispatchError:
        try:
            async with opening as service:
                return await work_and_ask(service)
        except DispatchError as error:
            # Handed out as a value: nurseries would wrap it in a group.
            return error

    def on_signal() -> None:
        view.on_progress(Progress("Ending the agents; a second signal leaves at once"))

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(view.show)
            outcome = await until_signal(in_service, on_signal)
            nursery.cancel_scope.cancel()
    finally:
        view.close()
    if isinstance(outcome, signal.Signals):
        return Attended(None, outcome)
    return outcome if isinstance(outcome, DispatchError) else Attended(outcome)


async def until_signal(
    work: Callable[[], Awaitable[T]],
    on_signal: Callable[[], None],
    *,
    leave: Callable[[int], object] = os._exit,
) -> T | signal.Signals:
    """Run `work`; a signal cancels it, waits for its end, and is what is returned then.

    A result outranks a signal that came too late to prevent it. Signals that are ignored, as
    nohup(1) does with SIGHUP, stay ignored.

    Args:
        work: What a signal cancels.
        on_signal: Called at the first signal.
        leave: Ends the process, with the exit status of a shell for that signal, when `work` needs
            longer than `LEAVE_WITHIN_S` to end, or when a second signal comes.
    """
    heeded = [signum for signum in _ENDING_SIGNALS if signal.getsignal(signum) != signal.SIG_IGN]
    received: list[signal.Signals] = []
    results: list[T] = []
    scope = trio.CancelScope()

    async def watch(arriving: AsyncIterator[int]) -> None:
        received.append(signal.Signals(await anext(arriving)))
        on_signal()
        scope.cancel()
        with trio.move_on_after(LEAVE_WITHIN_S):
            await anext(arriving)
        leave(128 + received[0])

    with trio.open_signal_receiver(*heeded) as arriving:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch, arriving)
            with scope:
                results.append(await work())
            nursery.cancel_scope.cancel()
    return results[0] if results else received[0]
