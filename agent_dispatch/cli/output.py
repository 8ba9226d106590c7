"""Write answers and remarks: JSON, tables or plain text, free of control sequences."""

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
"""Control characters except tab and newline, and the marks that change the direction of text."""
_UNBOUNDED_COLUMNS = 1_000
GAP = "  "
"""Between the columns of a table."""
_FEWEST_COLUMNS = 20
"""Of the last cell of a table, however narrow the terminal is."""


class OutputError(Exception):
    """The answer could not be written, for another reason than a closed pipe."""


class Colour(StrEnum):
    """The colours in use, as SGR parameters."""

    GOOD = "32"
    BAD = "31"
    DOUBTFUL = "33"
    NAME = "1"
    FAINT = "2"


def printable(text: str) -> str:
    """Remove what a terminal would obey or hide; newlines and tabs stay."""
    return _CONTROL.sub("", _SEQUENCE.sub("", text.replace("\r\n", "\n")))


def one_line(text: str) -> str:
    """Make text printable and join its lines to one."""
    return " ".join(printable(text.replace("\r", " ")).split())


def cell_width(text: str) -> int:
    """The columns that printable text takes on a terminal."""
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
    """Cut the beginning of printable text to fit `width` columns; the end of a path tells most."""
    if cell_width(text) <= width:
        return text
    kept = text[-max(width - 3, 1) :]
    while cell_width(kept) > max(width - 3, 1):
        kept = kept[1:]
    return f"...{kept}"


def dollars(usd: float) -> str:
    """An amount for people: cents, and more digits below one cent."""
    return f"${usd:.2f}" if usd == 0 or usd >= 0.01 else f"${usd:.4f}"


def columns_of(shell: Shell) -> int:
    """The width of the terminal, or `COLUMNS` for a file or pipe; without either, very wide."""
    if shell.stdout.isatty():
        # Some terminals do not know their size.
        with contextlib.suppress(OSError):
            return os.get_terminal_size(shell.stdout.fileno()).columns or _UNBOUNDED_COLUMNS
    columns = shell.environ.get("COLUMNS", "")
    return int(columns) if columns.isdecimal() and int(columns) else _UNBOUNDED_COLUMNS


def pad(text: str, width: int) -> str:
    """Fill printable text with spaces up to `width` columns."""
    return text + " " * (width - cell_width(text))


def is_plain_terminal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether a person reads `stream` on a terminal that can rewrite a line."""
    return stream.isatty() and environ.get("TERM", "dumb") != "dumb"


def paint(text: str, colour: Colour, shell: Shell, stream: TextIO | None = None) -> str:
    """Colour text for stdout, or for `stream`, if that is a terminal and wants colour."""
    is_terminal = is_plain_terminal(stream or shell.stdout, shell.environ)
    # https://no-color.org
    if not is_terminal or shell.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{colour}m{text}\x1b[0m"


def title(text: str, shell: Shell) -> str:
    """Set off a heading for stdout."""
    return paint(text, Colour.NAME, shell)


def table(
    rows: Sequence[Sequence[str]],
    shell: Shell,
    *,
    headings: Sequence[str] = (),
    colours: Sequence[Mapping[int, Colour]] = (),
) -> list[str]:
    """Return one line for each row; the last cell is cut at the edge of the terminal.

    Args:
        rows: Printable cells, all rows of one length.
        headings: The first line.
        colours: For each row, the colours of cells by their place; the last cell has none.
    """
    if not rows:
        return []
    every = [headings, *rows] if headings else rows
    widths = [max(map(cell_width, column)) for column in zip(*every, strict=True)][:-1]
    room = columns_of(shell) - sum(widths) - len(GAP) * len(widths)

    def line(row: Sequence[str], colours: Mapping[int, Colour]) -> str:
        cells = [pad(cell, width) for cell, width in zip(row, widths, strict=False)]
        for place, colour in colours.items():
            cells[place] = paint(cells[place], colour, shell)
        return GAP.join([*cells, fit(row[-1], max(room, _FEWEST_COLUMNS))]).rstrip()

    lines = [paint(line(headings, {}), Colour.FAINT, shell)] if headings else []
    for place, row in enumerate(rows):
        lines.append(line(row, colours[place] if colours else {}))
    return lines


def write_json(shell: Shell, value: object) -> None:
    """Write the answer as indented JSON, in UTF-8 whatever the locale."""
    document = msgspec.json.format(msgspec.json.encode(value), indent=2)
    with _delivery():
        shell.stdout.flush()
        shell.stdout.buffer.write(document + b"\n")
        shell.stdout.buffer.flush()


def write_lines(shell: Shell, lines: Iterable[str], *, at_once: bool = False) -> None:
    """Write printable lines as the answer; `at_once` flushes, when the next may take a while."""
    with _delivery():
        shell.stdout.writelines(f"{line}\n" for line in lines)
        if at_once:
            shell.stdout.flush()


def write_answer(shell: Shell, text: str) -> None:
    """Write an agent's text as the answer; on a terminal without control sequences."""
    shown = printable(text) if shell.stdout.isatty() else text
    with _delivery():
        shell.stdout.write(shown if shown.endswith("\n") or not shown else shown + "\n")


def remark(shell: Shell, text: str, colour: Colour | None = None) -> None:
    """Write a remark on stderr, after the answer so far."""
    shown = printable(text)
    if colour is not None:
        shown = paint(shown, colour, shell, shell.stderr)
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
    """Write printable text on stderr, if that is possible.

    A full disk or a closed terminal loses the remark only. The answer is on stdout, and the exit
    status says how it went.
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
    """Format a time of the epoch in the local zone; a record may hold any number."""
    try:
        return time.strftime(form, time.localtime(seconds))
    except (OverflowError, ValueError, OSError):
        return f"{seconds:g} (no calendar has this time)"


def listing(items: Sequence[str] | None) -> str:
    """Join names with commas."""
    return ", ".join(one_line(item) for item in items or ())


def counted(number: int, noun: str) -> str:
    """A number with its noun, in the singular or plural."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
