"""Runs the `verify` command of an agent on the work of one run, under a guard."""

import os
import secrets
import shutil
from collections.abc import Mapping, Sequence

import msgspec
import trio

from agent_dispatch.claude.child import ChildStartError
from agent_dispatch.claude.launcher import Launcher
from agent_dispatch.claude.program import run_program
from agent_dispatch.core.command import MARKER_VARIABLE, Command
from agent_dispatch.core.outcome.verify import (
    TAIL_BYTES,
    CheckResult,
    apply_check,
    cancelled_unchecked,
    check_result,
    kept_output,
    repair_prompt,
    shown_command,
)
from agent_dispatch.model.dispatch import DispatchResult, Progress
from agent_dispatch.run.run_job import JobRun
from agent_dispatch.threads import in_thread


class Verification:
    """The checks of one run: how many are left, and what the last one found."""

    def __init__(
        self, command: Sequence[str] | None, attempts: int, run: JobRun, launcher: Launcher
    ) -> None:
        """Check with `command`, at most `attempts` times; None checks nothing."""
        self._command = command or ()
        self._left = attempts if command else 0
        self._run = run
        self._launcher = launcher
        self._found: CheckResult | None = None

    @property
    def is_due(self) -> bool:
        """Whether the work still has to be checked."""
        return self._left > 0 and not self.has_passed

    @property
    def may_repair(self) -> bool:
        """Whether the agent gets another turn if the next check fails."""
        return self._left > 1 and not self.has_passed

    @property
    def has_passed(self) -> bool:
        """The last check passed."""
        return self._found is not None and self._found.passed

    @property
    def repair_prompt(self) -> str:
        """The next turn of the agent, after a check that failed."""
        assert self._found is not None
        return repair_prompt(self._command, self._found)

    async def check(self, agent_command: Command, left_s: float, held_fds: Sequence[int]) -> bool:
        """Run the command once, and return whether it passed.

        If cancelled, no process of it is left.

        Args:
            agent_command: It has the directory and the environment.
            left_s: How long it may take.
            held_fds: Descriptors that its guard keeps open until no process of it is left.
        """
        self._left -= 1
        self._run.report(Progress(f"Running the verify command: {shown_command(self._command)}"))
        printed = bytearray()
        # The agent's turn has ended, so there is nothing to interrupt.
        interrupt, self._run.interrupt = self._run.interrupt, self._run.cancel
        with trio.move_on_after(left_s) as patience:
            self._found = await self._judge(agent_command, held_fds, printed)
        self._run.interrupt = interrupt
        if patience.cancelled_caught:
            output = kept_output(bytes(printed))
            self._found = CheckResult("the time of the run was up before it had ended", output)
        how = "passed" if self.has_passed else "failed"
        self._run.report(Progress(f"The verify command {how}"))
        return self.has_passed

    async def _judge(
        self, agent_command: Command, held_fds: Sequence[int], printed: bytearray
    ) -> CheckResult:
        def keep(chunk: bytes) -> None:
            printed.extend(chunk)
            if len(printed) > 2 * TAIL_BYTES:
                del printed[:-TAIL_BYTES]

        name, *arguments = self._command
        program = await in_thread(_find, name, agent_command.cwd, agent_command.env)
        if program is None:
            return CheckResult(f"it cannot be started: {name!r} was not found")
        env, token = agent_command.env, secrets.token_hex(4)
        env = {**env, MARKER_VARIABLE: f"{env[MARKER_VARIABLE]}.{token}"}
        command = Command((program, *arguments), agent_command.cwd, env)
        try:
            exit_code = await run_program(
                self._launcher,
                command,
                on_output=keep,
                on_errors=keep,
                held_fds=[*held_fds, *self._run.owned.held_fds],
                on_child=self._run.helpers.append,
            )
        except ChildStartError as error:
            return CheckResult(f"it cannot be started: {error}")
        return check_result(exit_code, bytes(printed))

    def applied(self, result: DispatchResult) -> DispatchResult:
        """Return the result of the run as the last check decides it."""
        return result if self._found is None else apply_check(result, self._command, self._found)

    def cancelled(self, result: DispatchResult, by: str) -> DispatchResult:
        """Return the result of the run that was cancelled at this point."""
        if not self._command or self.has_passed:
            return self.applied(result)
        if self._found is not None:
            result = msgspec.structs.replace(result, verify_output=self._found.output or None)
        return cancelled_unchecked(result, by)


def _find(name: str, directory: str, env: Mapping[str, str]) -> str | None:
    """Find a program as a shell in `directory` would, relative folders of PATH left out."""
    if "/" in name:
        path = os.path.join(directory, name)
        return path if os.path.exists(path) else None
    folders = env.get("PATH", os.defpath).split(os.pathsep)
    return shutil.which(name, path=os.pathsep.join(filter(os.path.isabs, folders)))
