"""Results that the docs show: kept as JSON in `bench/results`, and written into pages of `docs`.

A block of a page lies between the lines `<!-- NAME:begin -->` and `<!-- NAME:end -->`. Only
commands write there, so that no figure is typed by hand.
"""

import json
import platform
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import agent_dispatch

_ROOT = Path(__file__).parents[1]
RELIABILITY = _ROOT / "docs" / "reliability.md"
SPEED = _ROOT / "docs" / "speed.md"
RESULTS = _ROOT / "bench" / "results"
Show = Callable[[Mapping[str, Any]], str]
"""Turns a result into Markdown."""


class NoBlockError(Exception):
    """The text does not have exactly one block of that name."""


def keep(
    name: str,
    result: Mapping[str, Any],
    show: Show,
    *,
    folder: Path = RESULTS,
    page: Path = RELIABILITY,
) -> None:
    """Write a result into the file `folder/NAME.json` and into the block NAME of `page`.

    Raises:
        NoBlockError: There is no such block; nothing was written.
    """
    text = json.dumps(result, indent=1) + "\n"
    # Show what a later reader will load: JSON turns tuples into lists.
    write_block(name, show(json.loads(text)), page)
    (folder / f"{name}.json").write_text(text, encoding="utf-8")


def block_of(text: str, name: str) -> str:
    """The text between the markers."""
    begin, end = _bounds(text, name)
    return text[begin:end]


def with_block(text: str, name: str, content: str) -> str:
    """The text with a new block and everything else unchanged."""
    begin, end = _bounds(text, name)
    # Markdown needs empty lines between a comment and a table.
    return f"{text[:begin]}\n{content.strip()}\n\n{text[end:]}"


def write_block(name: str, content: str, path: Path) -> None:
    """Replace the block in a file."""
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


def in_words(about: Mapping[str, object]) -> str:
    """The description of a run, in one line."""
    return "; ".join(f"{name}: {value}" for name, value in about.items())


def about_this_run(command: str) -> dict[str, object]:
    """What was run, and where; to be called at the end of a run."""
    return {
        "command": command,
        "agent-dispatch": f"{agent_dispatch.__version__}{measured_commit()}",
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "finished": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
    }


def measured_commit() -> str:
    """`, commit HASH`, to end a phrase with; empty outside a Git work tree."""
    try:
        commit = _git("rev-parse", "--short", "HEAD")
        changed = _git("status", "--porcelain", "--", "agent_dispatch")
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f", commit {commit}{' and changes' if changed else ''}"


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(_ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
