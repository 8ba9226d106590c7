"""Permission questions of a run in the foreground, asked on its terminal."""

import contextlib
import os
import termios
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager

import trio

from agent_dispatch.cli.jobs.display import short_id
from agent_dispatch.cli.output import Colour, is_plain_terminal, one_line, paint
from agent_dispatch.cli.shell import Shell
from agent_dispatch.core.questions import shown_input, shown_text
from agent_dispatch.errors import DispatchError
from agent_dispatch.model.dispatch import Progress
from agent_dispatch.model.question import Question, Verdict

_ALLOWS = frozenset({"y", "yes", "allow"})
_CONFIRM_S = 5.0
"""How long to wait until the run has taken an answer; it needs milliseconds."""
_LINE_BYTES = 4096
"""More than a terminal gives at once."""

GiveAnswer = Callable[[str, Verdict, str], Awaitable[object]]
"""Takes the ids of job and question, and the answer between them."""


def can_ask(shell: Shell) -> bool:
    """Whether a person reads stderr and types on stdin."""
    return shell.stdin.isatty() and is_plain_terminal(shell.stderr, shell.environ)


class TerminalAsker:
    """Asks the questions of one run on a terminal."""

    def __init__(
        self,
        stdin: Callable[[], int],
        say: Callable[[str], object],
        silence: Callable[[], AbstractContextManager[object]],
    ) -> None:
        """Read answers from a terminal.

        Args:
            stdin: Gives its descriptor.
            say: Writes text on the terminal.
            silence: Keeps progress off the terminal while its block runs.
        """
        self._stdin = stdin
        self._say = say
        self._silence = silence
        self._job_id = ""
        self._open: Mapping[str, Question] = {}
        self._left_open: set[str] = set()
        self._changed = trio.Event()

    def on_progress(self, progress: Progress) -> None:
        """Note the open questions and return at once."""
        self._job_id = progress.job_id or self._job_id
        if progress.questions is not None:
            self._open = {question.id: question for question in progress.questions}
            changed, self._changed = self._changed, trio.Event()
            changed.set()

    async def ask(self, give: GiveAnswer) -> None:
        """Ask each question once, the oldest first, until cancelled or the terminal is closed."""
        while True:
            waiting = [q for q in self._open.values() if q.id not in self._left_open]
            if not waiting:
                await self._changed.wait()
                continue
            question = waiting[0]
            self._left_open.add(question.id)
            with self._silence():
                self._say(_text(question))
                try:
                    line = await self._line_while_open(question)
                except BaseException:
                    self._say("\n")  # The answer of the run begins on a new line.
                    raise
                if line is None:
                    self._say("\nThe agent no longer asks.\n")
                    continue
                if not line:
                    self._say("\n")
                await self._take(line, question, give)
                if not line:
                    return  # The terminal is closed.

    async def _line_while_open(self, question: Question) -> str | None:
        """Return the typed line with its newline; None if the question is closed before."""
        stdin = self._stdin()
        # Input typed before the question was shown does not answer it.
        with contextlib.suppress(termios.error):
            termios.tcflush(stdin, termios.TCIFLUSH)
        lines: list[str] = []
        async with trio.open_nursery() as nursery:

            async def read() -> None:
                await trio.lowlevel.wait_readable(stdin)
                try:
                    data = os.read(stdin, _LINE_BYTES)
                except OSError:  # The terminal is gone.
                    data = b""
                lines.append(data.decode(errors="replace"))
                nursery.cancel_scope.cancel()

            nursery.start_soon(read)
            while question.id in self._open:
                await self._changed.wait()
            nursery.cancel_scope.cancel()
        return lines[0] if lines else None

    async def _take(self, line: str, question: Question, give: GiveAnswer) -> None:
        word = line.strip().lower()
        if not word:
            job = short_id(self._job_id)
            command = f"agent-dispatch answer {job} allow --question {question.id}"
            self._say(f"Left open. To answer later: {command}\n")
            return
        verdict = Verdict.ALLOW if word in _ALLOWS else Verdict.DENY
        try:
            # Shielded, because the run may end before the answer is confirmed.
            with trio.move_on_after(_CONFIRM_S, shield=True) as confirming:
                await give(self._job_id, verdict, question.id)
        except DispatchError as error:
            self._say(f"{one_line(str(error))}\n")
            return
        if confirming.cancelled_caught:
            self._say("The answer is sent, but not taken yet.\n")
        else:
            self._say("Allowed this call.\n" if verdict is Verdict.ALLOW else "Denied this call.\n")


def make_asker(
    shell: Shell, silence: Callable[[], AbstractContextManager[object]]
) -> TerminalAsker | None:
    """Return an asker for the terminal of this call, if it has one."""
    if not can_ask(shell):
        return None

    def say(text: str) -> None:
        # If the terminal is gone, the question stays open.
        with contextlib.suppress(OSError):
            shell.stderr.write(paint(text, Colour.DOUBTFUL, shell, shell.stderr))
            shell.stderr.flush()

    return TerminalAsker(shell.stdin.fileno, say, silence)


def _text(question: Question) -> str:
    return (
        f"{one_line(question.agent)} asks for permission to use {shown_text(question.tool)}:\n"
        f"  {shown_input(question.input)}\n"
        "Allow this call? y allows it, Enter leaves it open, anything else denies it: "
    )
