"""Show an error: one line that says what happened, then tips, each with a command.

This block comes last on stderr. Details that do not fit in the line stand above it.
"""

import re
from collections.abc import Iterable, Sequence

from agent_dispatch.cli.next_steps import tips_for
from agent_dispatch.cli.output import Colour, fit, one_line, printable, remark, write_json
from agent_dispatch.cli.shell import Shell
from agent_dispatch.errors import DispatchError, UnknownAgentError, UnknownGroupError
from agent_dispatch.model.next_step import NextStep

MAX_LINE_CHARS = 200
_LABEL = "error: "

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


class MisuseError(DispatchError):
    """The command line is wrong: exit status 2, and nothing was done."""


def report_error(shell: Shell, error: DispatchError, *, as_json: bool) -> None:
    """Report a refused call: as JSON on stdout, or as text on stderr."""
    tips, message = all_tips(error.next_steps), str(error)
    if not tips and isinstance(error, UnknownAgentError | UnknownGroupError):
        is_group = isinstance(error, UnknownGroupError)
        tips = ["agent-dispatch group list" if is_group else "agent-dispatch list"]
        # The line has no room for many names; the command of the tip lists all.
        message = fit(one_line(message), MAX_LINE_CHARS - len(_LABEL))
    if as_json:
        write_json(shell, {"error": _text(str(error)), "tips": [_text(tip) for tip in tips]})
    else:
        show_error(shell, message, tips)


def show_error(shell: Shell, message: str, tips: Sequence[str], kind: str = "") -> None:
    """Write the block of an error on stderr; nothing is written there after it.

    Args:
        message: What happened; any text.
        tips: The tips.
        kind: The type of error, if it has one.
    """
    line, details = error_parts(message, kind)
    write_error(shell, details, line, tips)


def error_parts(message: str, kind: str) -> tuple[str, str]:
    """Return the error line of a message with its type, and the details that do not fit in it."""
    label = f"error ({kind}): " if kind else _LABEL
    line, details = split_message(printable(message), MAX_LINE_CHARS - len(label))
    return f"{label}{line}", details


def write_error(shell: Shell, details: str, line: str, tips: Iterable[str]) -> None:
    """Write the block of an error: details, the error line, tips."""
    if details:
        remark(shell, details)
    remark(shell, line, Colour.BAD)
    for tip in tips:
        remark(shell, f"tip: {tip}")


def raise_together(*errors: DispatchError, steps: Iterable[NextStep] = ()) -> None:
    """Raise several errors as one, with `steps` as the last tips.

    Raises:
        DispatchError: There are errors.
    """
    if errors:
        advice = (step for error in errors for step in error.next_steps)
        raise DispatchError("\n".join(map(str, errors)), *advice, *steps)


def all_tips(steps: Iterable[NextStep] | None) -> list[str]:
    """Return the tips of some steps, each once."""
    return list(dict.fromkeys(tip for step in steps or () for tip in tips_for(step)))


def split_message(message: str, room: int) -> tuple[str, str]:
    """Return the first sentences of a message, as many as fit into one line, and the rest.

    If not even the first sentence fits, the line is its beginning and the rest is the whole text.
    """
    first, _, below = message.strip().partition("\n")
    sentences = _SENTENCE_END.split(one_line(first))
    line = sentences[0]
    if len(line) > room:
        return fit(line, room), message.strip()
    for place, sentence in enumerate(sentences[1:], start=1):
        if len(line) + 1 + len(sentence) > room:
            return line, "\n".join(filter(None, (" ".join(sentences[place:]), below.strip("\n"))))
        line = f"{line} {sentence}"
    return line, below.strip("\n")


def _text(text: str) -> str:
    """Escape the bytes of the command line that are not UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()
