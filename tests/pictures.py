"""Make the pictures of the README: what a person sees, on a real terminal.

    uv run --group dev python -m tests.pictures docs/pictures

Each scene runs a program on a pseudo-terminal and is saved as SVG when its screen shows what the
picture is about.
"""

import argparse
import io
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from itertools import groupby
from pathlib import Path

import pyte
import trio
from rich.console import Console
from rich.style import Style
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from tests.cli.terminal import on_terminal
from tests.e2e.claude_cli import installed_claude
from tests.e2e.messages_api import (
    ApiRequest,
    Reply,
    Script,
    answer,
    bash,
    dispatch,
    serve_messages_api,
)
from tests.e2e.network import open_network
from tests.e2e.session import session, settle_in
from tests.e2e.world import World
from tests.npm import cache_folder

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


def save(screen: pyte.Screen, path: Path, title: str, begin: str = "") -> None:
    """Save what a terminal shows as a picture, from the first line that has `begin` in it."""
    console = Console(
        file=io.StringIO(),
        record=True,
        width=screen.columns,
        force_terminal=True,
        legacy_windows=False,
    )
    first = next(row for row, line in enumerate(screen.display) if begin in line)
    for row in range(first, screen.lines):
        line = Text(no_wrap=True)
        cells = [screen.buffer[row][column] for column in range(screen.columns)]
        for style, alike in groupby(cells, _style):
            line.append("".join(cell.data for cell in alike), style)
        console.print(line)
    console.save_svg(str(path), title=title, theme=_DARK, code_format=_FORMAT, unique_id=path.stem)


def _style(cell: pyte.screens.Char) -> Style:
    return Style(bold=cell.bold, reverse=cell.reverse, color=_colour(cell.fg))


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
            save(terminal.screen, path, "agent-dispatch watch")


# -- the real Claude Code CLI, against the stand-in of its API


@asynccontextmanager
async def real_world(decide: Script) -> AsyncIterator[tuple[World, Path]]:
    """A home with the real CLI, an agent that may ask, and the project of the person."""
    claude = installed_claude(cache_folder(os.environ))
    with tempfile.TemporaryDirectory() as root, open_network() as network:
        async with serve_messages_api(network.listen(), decide) as api:
            world = World(Path(root), claude=claude, place=network.place, api_url=api.url)
            await world.product("init")
            await world.add_agent("infra", "--permission-mode", "manual")
            await world.product("update", "infra", "--permission-prompts", "ask")
            project = world.project("backend")
            settle_in(world, project)
            kubectl = world.root / "bin" / "kubectl"
            kubectl.write_text("#!/bin/sh\necho deployment.apps/web restarted\n")
            kubectl.chmod(0o755)
            yield world, project
            world.sweep()


def _play(request: ApiRequest) -> Reply:
    """Play both models: that of the session, and that of the agent."""
    newest = request.newest
    if "task-notification" in newest:
        return answer("infra has restarted the web deployment: 3 of 3 pods are ready.")
    if "restarted" in newest:
        return answer("Restarted deployment/web; 3 of 3 pods are ready.")
    if request.tool_results:
        return answer("infra is at work; I go on when it answers.")
    if "Restart the web deployment" in newest:
        return bash("kubectl rollout restart deployment/web")
    if "restart web" in newest and request.tools:
        return dispatch("infra", "Restart the web deployment")
    return answer("Restart")


async def ask_and_wake(question: Path, woken: Path) -> None:
    """A call without a permission asks in the session; the answer wakes its model."""
    asked = "Ask infra to restart web, please"
    with trio.fail_after(40):
        async with (
            real_world(_play) as (world, project),
            session(world, project, asked, columns=100, rows=26) as shown,
        ):
            await shown.wait_for("rollout restart", "Accept")
            save(shown.screen, question, "claude", begin=asked)
            await shown.press_until_gone("\r", "Accept")
            await shown.wait_for("3 of 3 pods are ready")
            save(shown.screen, woken, "claude", begin=asked)


def question(path: Path) -> None:
    """The question of an agent in the caller's session, and the model that its answer wakes."""
    trio.run(ask_and_wake, path, path.with_name("woken.svg"))


SCENES: Mapping[str, Callable[[Path], None]] = {"watch": watch, "question": question}


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
