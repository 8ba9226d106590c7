"""Make the pictures of the README: what a person sees, on a real terminal.

    uv run python -m tests.pictures docs/pictures

Each scene runs a program on a pseudo-terminal and is saved as SVG when its screen shows what the
picture is about.
"""

import argparse
import io
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from rich.console import Console
from rich.style import Style
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from tests.cli.terminal import Terminal, on_terminal

PROGRAM = [sys.executable, "-P", "-m", "agent_dispatch"]
_FORMAT = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">
<style>
.{unique_id}-matrix {{
  font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: {char_height}px; line-height: {line_height}px; font-variant-east-asian: full-width;
}}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""
"""As rich's own, without fonts from the network."""
_ANSI = [
    (30, 34, 42),
    (224, 108, 117),
    (152, 195, 121),
    (229, 192, 123),
    (97, 175, 239),
    (198, 120, 221),
    (86, 182, 194),
    (171, 178, 191),
]
_BRIGHT = [(127, 132, 142), *_ANSI[1:7], (255, 255, 255)]
_DARK = TerminalTheme((30, 34, 42), (220, 223, 228), _ANSI, _BRIGHT)
_NAMES = {"brown": "yellow", "default": ""}


def save(terminal: Terminal, path: Path, title: str) -> None:
    """Save what a terminal shows as a picture."""
    screen = terminal.screen
    console = Console(
        file=io.StringIO(),
        record=True,
        width=screen.columns,
        force_terminal=True,
        legacy_windows=False,
    )
    for row in range(screen.lines):
        line = Text(no_wrap=True)
        for column in range(screen.columns):
            cell = screen.buffer[row][column]
            line.append(
                cell.data, Style(bold=cell.bold, reverse=cell.reverse, color=_colour(cell.fg))
            )
        console.print(line)
    console.save_svg(str(path), title=title, theme=_DARK, code_format=_FORMAT, unique_id=path.stem)


def _colour(name: str) -> str | None:
    name = _NAMES.get(name, name)
    if not name:
        return None
    if len(name) == 6 and name.strip("0123456789abcdef") == "":
        return f"#{name}"
    return name.replace("bright", "bright_") if name.startswith("bright") else name


def watch(path: Path) -> None:
    """The view of `watch`, on the stand-in."""
    with tempfile.TemporaryDirectory() as home:
        environ = {"HOME": home, "PATH": os.environ["PATH"]}
        with on_terminal([*PROGRAM, "demo", "--watch"], environ, columns=100, rows=12) as terminal:
            terminal.wait_for("High water on Tuesday", "ferry")
            terminal.press("j")
            terminal.wait_for("running")
            save(terminal, path, "agent-dispatch watch")


SCENES: Mapping[str, Callable[[Path], None]] = {"watch": watch}


def main() -> None:
    """Make all pictures, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("scenes", nargs="*", default=list(SCENES), metavar="SCENE")
    arguments = parser.parse_args()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    for name in arguments.scenes:
        SCENES[name](arguments.directory / f"{name}.svg")


if __name__ == "__main__":
    main()
