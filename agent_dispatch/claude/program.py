"""Run a program other than claude under a guard, from its start to its end."""

from collections.abc import Callable, Sequence

from agent_dispatch.claude.child import Child, open_child
from agent_dispatch.claude.conversation import say
from agent_dispatch.claude.launcher import Launcher
from agent_dispatch.claude.pipes import Sink
from agent_dispatch.core.command import Command


async def run_program(
    launcher: Launcher,
    command: Command,
    *,
    on_output: Sink,
    on_errors: Sink | None = None,
    stdin: bytes = b"",
    held_fds: Sequence[int] = (),
    on_child: Callable[[Child], object] = lambda child: None,
) -> int | None:
    """Run `command` to its end; return its exit code, negative for a signal, None if unknown.

    If cancelled, its processes are ended first.

    Args:
        launcher: Starts its guard.
        command: The command; its environment has a marker.
        on_output: Called with each chunk of stdout; must not wait.
        on_errors: The same for stderr; None drops it.
        stdin: The program's input.
        held_fds: Descriptors that the guard keeps open until the last process has ended.
        on_child: Called with the child before it runs.

    Raises:
        ChildStartError: The program or directory cannot be used, or nothing could be forked.
    """
    async with open_child(
        launcher, command, on_stdout=on_output, on_stderr=on_errors, held_fds=held_fds
    ) as child:
        on_child(child)
        if stdin:
            await say(child, stdin)
        child.close_stdin()
        await child.wait_until(lambda: child.exited)
    return child.exit_code
