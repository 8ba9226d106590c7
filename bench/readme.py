"""Blocks of README.md that a command writes, so that no figure in it is typed.

A block lies between the lines `<!-- NAME:begin -->` and `<!-- NAME:end -->`.
"""

from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


class NoBlockError(Exception):
    """The text has no such block, or more than one."""


def block_of(text: str, name: str) -> str:
    """What lies between the markers.

    Raises:
        NoBlockError: There is not exactly one block of that name.
    """
    begin, end = _bounds(text, name)
    return text[begin:end]


def with_block(text: str, name: str, content: str) -> str:
    """The text with the block replaced, and nothing else changed.

    Raises:
        NoBlockError: There is not exactly one block of that name.
    """
    begin, end = _bounds(text, name)
    # Empty lines around it: a table that touches a comment is none.
    return f"{text[:begin]}\n{content.strip()}\n\n{text[end:]}"


def write_block(name: str, content: str, path: Path = README) -> None:
    """Replace the block in a file.

    Raises:
        NoBlockError: There is not exactly one block of that name.
    """
    text = path.read_text(encoding="utf-8")
    path.write_text(with_block(text, name, content), encoding="utf-8")


def _bounds(text: str, name: str) -> tuple[int, int]:
    begin_line, end_line = f"<!-- {name}:begin -->\n", f"<!-- {name}:end -->"
    if text.count(begin_line) != 1 or text.count(end_line) != 1:
        raise NoBlockError(f"there must be one {begin_line.strip()} and one {end_line}")
    begin, end = text.index(begin_line) + len(begin_line), text.index(end_line)
    if end < begin:
        raise NoBlockError(f"{end_line} comes before {begin_line.strip()}")
    return begin, end
