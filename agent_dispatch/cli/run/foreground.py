"""Calls of the service with live progress, questions on the terminal and signals."""

import math
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from typing import TYPE_CHECKING, TypeVar

import trio

from agent_dispatch.cli.event_loop import run_trio, until_signal
from agent_dispatch.cli.run.ended import Ended
from agent_dispatch.cli.run.progress import ProgressView, Style
from agent_dispatch.cli.run.terminal_questions import make_asker
from agent_dispatch.cli.shell import Shell
from agent_dispatch.errors import DispatchError
from agent_dispatch.model.dispatch import DispatchResult, OnProgress, Progress
from agent_dispatch.model.question import AnsweredBy, Verdict

if TYPE_CHECKING:
    from agent_dispatch.claude.fork_server import ForkServer
    from agent_dispatch.run.service import Service

T = TypeVar("T")

Call = Callable[["Service", OnProgress], Awaitable[T]]

_READ_S = 2.0
"""How long to read the records after a signal: less than the process may take to leave."""


def run_in_foreground(
    shell: Shell,
    fork_server: "ForkServer",
    call: Call[T],
    style: Style,
    *,
    claude: Sequence[str] | None = None,
    asks_here: bool = False,
) -> Ended[T]:
    """Make the call and wait for its end, or for SIGINT, SIGTERM or SIGHUP.

    A signal cancels it, and this call returns when the agents' processes are gone. If that takes
    longer than `LEAVE_WITHIN_S`, or on a second signal, this process exits at once: the guards of
    the runs notice that and end them.

    Args:
        fork_server: Started before Trio was.
        call: What to do with the service.
        style: How progress is shown on stderr.
        claude: The program to run instead of `claude`.
        asks_here: Ask permission questions on the terminal, if there is one.

    Raises:
        DispatchError: The call was refused.
    """
    opening = shell.open_service(environ=shell.environ, fork_server=fork_server, claude=claude)
    return run_trio(_run, shell, opening, call, style, asks_here)


async def _run(
    shell: Shell,
    opening: "AbstractAsyncContextManager[Service]",
    call: Call[T],
    style: Style,
    asks_here: bool,
) -> Ended[T]:
    view = ProgressView(shell.stderr, style)
    asker = make_asker(shell, view.silent) if asks_here else None
    job_ids: dict[int | None, str] = {}
    recorded: dict[int | None, DispatchResult] = {}

    def on_progress(progress: Progress) -> None:
        if progress.job_id is not None:
            job_ids[progress.member] = progress.job_id
        view.on_progress(progress)
        if asker is not None:
            asker.on_progress(progress)

    async def call_and_ask(service: "Service") -> T:
        async def answer(job_id: str, verdict: Verdict, question_id: str) -> object:
            return await service.jobs.answer(job_id, verdict, AnsweredBy.TERMINAL, question_id)

        async with trio.open_nursery() as nursery:
            if asker is not None:
                nursery.start_soon(asker.ask, answer)
            result = await call(service, on_progress)
            nursery.cancel_scope.cancel()
        return result

    async def serve_call() -> T:
        async with opening as service:
            try:
                return await call_and_ask(service)
            finally:
                if trio.current_effective_deadline() == -math.inf:
                    with trio.move_on_after(_READ_S, shield=True):
                        await _read_records(service, job_ids, recorded)

    def on_signal() -> None:
        view.on_progress(Progress("Ending the agents; a second signal leaves at once"))

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(view.show)
            outcome = await until_signal(serve_call, on_signal)
            nursery.cancel_scope.cancel()
    finally:
        view.close()
    if isinstance(outcome, signal.Signals):
        return Ended(None, outcome, recorded)
    return Ended(outcome)


async def _read_records(
    service: "Service",
    job_ids: Mapping[int | None, str],
    recorded: dict[int | None, DispatchResult],
) -> None:
    """Fill `recorded` with the results of some jobs, by member."""
    for member, job_id in job_ids.items():
        with suppress(DispatchError):
            recorded[member] = await service.jobs.result(job_id)
