"""One call of the service, for commands that neither show progress nor wait long."""

from collections.abc import Awaitable, Callable
from contextlib import closing
from typing import TYPE_CHECKING, TypeVar

from agent_dispatch.cli.shell import Shell
from agent_dispatch.errors import DispatchError

if TYPE_CHECKING:
    # For type checkers only: it imports what a refused command does not need.
    from agent_dispatch.run.service import Service

T = TypeVar("T")


def call_service(shell: Shell, call: "Callable[[Service], Awaitable[T]]") -> T:
    """Open the service, make the call and return its answer.

    Raises:
        DispatchError: The call was refused.
        KeyboardInterrupt: Ctrl-C was pressed.
    """
    with closing(shell.start_fork_server()) as fork_server:
        # Not before the fork: the fork server would keep a copy of it.
        import trio

        async def answer() -> T | DispatchError:
            try:
                async with shell.open_service(
                    environ=shell.environ, fork_server=fork_server
                ) as service:
                    return await call(service)
            except DispatchError as error:
                return error  # Raised here, the nurseries around would wrap it in a group.

        try:
            answered = trio.run(answer)
        except BaseExceptionGroup as group:
            if group.subgroup(KeyboardInterrupt) is None:
                raise
            raise KeyboardInterrupt from group
    if isinstance(answered, DispatchError):
        raise answered
    return answered
