"""How answers and remarks are written: JSON, plain text, and nothing that a terminal would obey."""

import contextlib
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import TextIO

import msgspec

from agent_dispatch.cli.shell import Shell

_SEQUENCE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b\n]*(?:\x07|\x1b\\)?|[PX^_][^\x1b\n]*(?:\x1b\\)?"
    r"|[ -/]+[0-~]|[0-~]?)"
)
"""Escape sequences (ECMA-48): CSI, OSC, the other strings to their line's end, and short ones."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Controls but tab and newline, and the marks that turn the direction of text around."""


_UNBOUNDED_COLUMNS = 1_000


class OutputError(Exception):
    """The answer could not be written, but not because its reader left."""


class Colour(StrEnum):
    """The colours in use, as SGR parameters."""

    GOOD = "32"
    BAD = "31"
    DOUBTFUL = "33"
    NAME = "1"
    FAINT = "2"


def printable(text: str) -> str:
    """Text without what a terminal would obey or hide; lines and tabs stay."""
    return _CONTROL.sub("", _SEQUENCE.sub("", text.replace("\r\n", "\n")))


def one_line(text: str) -> str:
    """The same as `printable`, on one line."""
    return " ".join(printable(text.replace("\r", " ")).split())


def cell_width(text: str) -> int:
    """Columns that printable text takes on a terminal."""
    if text.isascii():
        return len(text)
    import unicodedata

    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in text
    )


def fit(text: str, width: int) -> str:
    """Cut printable text to `width` columns; three dots show that something is missing."""
    if cell_width(text) <= width:
        return text
    if width <= 3:
        return "." * max(width, 0)
    kept = text
    while cell_width(kept) > width - 3:
        kept = kept[: width - 3] if len(kept) > width - 3 else kept[:-1]
    return kept + "..."


def fit_end(text: str, width: int) -> str:
    """Cut printable text to `width` columns from its beginning, as is best for a path."""
    if cell_width(text) <= width:
        return text
    kept = text[-max(width - 3, 1) :]
    while cell_width(kept) > max(width - 3, 1):
        kept = kept[1:]
    return f"...{kept}"


def dollars(usd: float) -> str:
    """An amount for people: cents, and more digits below one cent."""
    return f"${usd:.2f}" if usd == 0 or usd >= 0.01 else f"${usd:.4f}"


def columns_of(stream: TextIO, environ: Mapping[str, str]) -> int:
    """The width of a terminal, or of `COLUMNS` for others; without both, room for everything."""
    if stream.isatty():
        # A terminal may not tell.
        with contextlib.suppress(OSError):
            return os.get_terminal_size(stream.fileno()).columns or _UNBOUNDED_COLUMNS
    columns = environ.get("COLUMNS", "")
    return int(columns) if columns.isdecimal() and int(columns) else _UNBOUNDED_COLUMNS


def pad(text: str, width: int) -> str:
    """Fill printable text with spaces up to `width` columns."""
    return text + " " * (width - cell_width(text))


def is_plain_terminal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether a person reads `stream` on a terminal that can rewrite a line."""
    return stream.isatty() and environ.get("TERM", "dumb") != "dumb"


def paint(text: str, colour: Colour, stream: TextIO, environ: Mapping[str, str]) -> str:
    """Colour the text, if `stream` is a terminal and https://no-color.org does not forbid it."""
    if environ.get("NO_COLOR") or not is_plain_terminal(stream, environ):
        return text
    return f"\x1b[{colour}m{text}\x1b[0m"


def write_json(shell: Shell, value: object) -> None:
    """Answer with indented JSON, UTF-8 whatever the locale."""
    document = msgspec.json.format(msgspec.json.encode(value), indent=2)
    with _delivery():
        shell.stdout.flush()
        shell.stdout.buffer.write(document + b"\n")
        shell.stdout.buffer.flush()


def write_lines(shell: Shell, lines: Iterable[str], *, at_once: bool = False) -> None:
    """Answer with lines, each made printable already; `at_once` when the next may take a while."""
    with _delivery():
        shell.stdout.writelines(f"{line}\n" for line in lines)
        if at_once:
            shell.stdout.flush()


def write_answer(shell: Shell, text: str) -> None:
    """Answer with an agent's text: verbatim, but for what would steer the reader's terminal."""
    shown = printable(text) if shell.stdout.isatty() else text
    with _delivery():
        shell.stdout.write(shown if shown.endswith("\n") or not shown else shown + "\n")


def remark(shell: Shell, text: str, colour: Colour | None = None) -> None:
    """Say something beside the answer, on stderr."""
    shown = printable(text)
    if colour is not None:
        shown = paint(shown, colour, shell.stderr, shell.environ)
    # The answer so far must not come after what is said about it.
    with _delivery():
        shell.stdout.flush()
    say(shell, f"{shown}\n")


def warn(shell: Shell, *texts: str) -> None:
    """Write each text as a warning on stderr, on one line."""
    for text in texts:
        remark(shell, f"warning: {one_line(text)}", Colour.DOUBTFUL)


def note(shell: Shell, *texts: str) -> None:
    """Write each text as a note on stderr, on one line."""
    for text in texts:
        remark(shell, f"note: {one_line(text)}")


def ask_yes_or_no(shell: Shell, question: str) -> bool:
    """Ask a person on the terminal; anything but yes is no."""
    say(shell, f"{question} [y/N] ")
    return shell.stdin.readline().strip().lower() in ("y", "yes")


def say(shell: Shell, text: str) -> None:
    """Write `text`, made printable already, on stderr, if anything can be written there.

    A full disk, a terminal that is gone or a reader that left costs the remark alone: what was
    paid for is the answer, and the exit status tells how that went.
    """
    with contextlib.suppress(OSError):
        shell.stderr.write(text)
        shell.stderr.flush()


@contextlib.contextmanager
def _delivery() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"The answer could not be written: {error.strerror}") from error


def local_time(seconds: float, form: str = "%Y-%m-%d %H:%M") -> str:
    """A time of the epoch in this machine's zone; records of others may hold any number."""
    try:
        return time.strftime(form, time.localtime(seconds))
    except (OverflowError, ValueError, OSError):
        return f"{seconds:g} (no calendar has this time)"


def listing(items: Sequence[str] | None) -> str:
    """Names in a row, for people."""
    return ", ".join(one_line(item) for item in items or ())


def counted(number: int, noun: str) -> str:
    """A number of things, for people."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
