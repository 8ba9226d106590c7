"""Applies the check of an agent's `verify` command to its answer.

The command is in the agent's own table: a caller can ask for it, but not choose it.
"""

import shlex
from collections.abc import Sequence

import msgspec

from agent_dispatch.core.masking import mask
from agent_dispatch.core.request.quoting import quote
from agent_dispatch.core.text import clip
from agent_dispatch.model.dispatch import DispatchResult, ErrorType

TAIL_BYTES = 64 * 1024
"""Of the end of the output; the rest is dropped."""
_OUTPUT_CHARS = 4000
_LAST_LINES = 10
_LAST_CHARS = 1000
_COMMAND_CHARS = 200


class CheckResult(msgspec.Struct, frozen=True):
    """The result of running the command once."""

    problem: str
    """Such as `it exited with status 1`; empty: it passed."""
    output: str = ""
    """The end of its output, with keys masked."""

    @property
    def passed(self) -> bool:
        """The command accepted the work."""
        return not self.problem


def check_result(exit_code: int | None, printed: bytes) -> CheckResult:
    """Judge a command that ran to its end.

    Args:
        exit_code: Negative for a signal; None: not known.
        printed: The end of its output, stdout and stderr together.
    """
    output = kept_output(printed)
    match exit_code:
        case 0:
            return CheckResult("", output)
        case None:
            return CheckResult("the end of it was not seen", output)
        case _ if exit_code < 0:
            return CheckResult(f"it was ended by signal {-exit_code}", output)
    return CheckResult(f"it exited with status {exit_code}", output)


def kept_output(printed: bytes) -> str:
    """Return the last 4,000 characters, with keys masked."""
    return mask(printed[-TAIL_BYTES:].decode(errors="replace"))[-_OUTPUT_CHARS:]


def apply_check(
    result: DispatchResult, command: Sequence[str], check: CheckResult
) -> DispatchResult:
    """Return the result of a run that answered, after the check."""
    result = msgspec.structs.replace(
        result, verified=check.passed, verify_output=check.output or None
    )
    if check.passed or not result.success:
        return result
    last_lines = "\n".join(check.output.rstrip().splitlines()[-_LAST_LINES:])[-_LAST_CHARS:]
    error = (
        f"The agent answered, but its work did not pass the verify command of agent"
        f" {result.agent!r}, {shown_command(command)}: {check.problem}. The answer is in `result`."
    )
    return msgspec.structs.replace(
        result,
        success=False,
        error=f"{error} The command said last:\n{last_lines}"
        if last_lines
        else f"{error} It printed nothing.",
        error_type=ErrorType.UNVERIFIED,
        # Steps would follow the last lines of the command's output.
        next_steps=None,
    )


def cancelled_unchecked(result: DispatchResult, by: str) -> DispatchResult:
    """Return the result of a run that answered and was cancelled before the check had passed."""
    if not result.success:
        return result
    return msgspec.structs.replace(
        result,
        success=False,
        error=f"Cancelled by {by} before its verify command had passed. The answer is in `result`.",
        error_type=ErrorType.CANCELLED,
    )


def repair_prompt(command: Sequence[str], check: CheckResult) -> str:
    """Return the prompt that has an agent repair what the command found."""
    output = quote("What it printed last", check.output) if check.output else "It printed nothing."
    return (
        f"Your work was checked with the command {shown_command(command)}, and did not pass:"
        f" {check.problem}.\n\n{output}\n\nRepair what it found. The command runs again when you"
        " have answered. Then give your answer to the task again, complete."
    )


def shown_command(command: Sequence[str]) -> str:
    """Return a command as one line, with keys masked."""
    line = " ".join(mask(shlex.join(command)).split())
    return f"`{clip(line, _COMMAND_CHARS)}`"
