"""`demo --watch`: several dispatches and a dialogue on the stand-in, in the view of `watch`."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import trio

from agent_dispatch.cli.event_loop import run_trio, status_after, until_signal
from agent_dispatch.cli.output import is_plain_terminal
from agent_dispatch.cli.shell import Shell, open_store
from agent_dispatch.cli.watch.command import Watcher, follow_changes
from agent_dispatch.model.dialogue import DialogueRequest
from agent_dispatch.model.dispatch import DispatchRequest, Member

if TYPE_CHECKING:
    from agent_dispatch.claude.fork_server import ForkServer
    from agent_dispatch.run.service import Service

_LAST_LOOK_S = 3.0
"""How long the end stays on the screen."""
_DAYS = ("Monday", "Tuesday", "Wednesday")


def watch_demo(shell: Shell, fork_server: "ForkServer", claude: Sequence[str] | None) -> int:
    """Show the view until the work ends or a key quits it; return the exit status."""
    watcher = Watcher(open_store(shell))
    opening = shell.open_service(environ=shell.environ, fork_server=fork_server, claude=claude)

    async def show() -> int:
        async with opening as service:
            if shell.stdin.isatty() and is_plain_terminal(shell.stdout, shell.environ):
                from agent_dispatch.cli.watch.terminal import watch_terminal

                async def work() -> None:
                    await _work(service)
                    await trio.sleep(_LAST_LOOK_S)

                return await watch_terminal(shell, watcher, service, beside=work)
            in_lines = partial(_work_and_print, shell, watcher, service)
            return status_after(await until_signal(in_lines))

    return run_trio(show)


async def _work_and_print(shell: Shell, watcher: Watcher, service: "Service") -> None:
    done = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(follow_changes, shell, watcher, may_end=done.is_set))
        await _work(service)
        done.set()


async def _work(service: "Service") -> None:
    tasks = [
        DispatchRequest(agent="tides", task=f"When is high water on {day}?", caller="ferry")
        for day in _DAYS
    ]
    talk = DialogueRequest(
        requester="ferry", responder="tides", topic="When can the ferry leave on Tuesday?"
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(service.parallel, [Member(request=task) for task in tasks])
        nursery.start_soon(service.dialogue, talk)
