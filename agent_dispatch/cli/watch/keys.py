"""The keys of `watch`: a view and a key give the next view, and perhaps a command."""

import re
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

_SPECIAL = {
    b"\x1b[A": "up",
    b"\x1b[B": "down",
    b"\x1bOA": "up",
    b"\x1bOB": "down",
    b"\x1b[5~": "page-up",
    b"\x1b[6~": "page-down",
    b"\x1b[H": "home",
    b"\x1b[F": "end",
    b"\r": "enter",
    b"\n": "enter",
    b"\x7f": "backspace",
    b"\x08": "backspace",
    b"\x15": "clear",
    b"\x1b": "escape",
}
_KEY = re.compile(
    rb"\x1b\[[0-?]*[ -/]*[@-~]|\x1bO.|\x1b|[\x00-\x7f]|[\xc0-\xf7][\x80-\xbf]*", re.DOTALL
)
"""One key: a control sequence (ECMA-48), a lone escape, or one character in UTF-8."""
_PAGE = 10
_MOVES = {"up": -1, "k": -1, "down": 1, "j": 1, "page-up": -_PAGE, "page-down": _PAGE}
MAX_TYPED_CHARS = 4_000


class Mode(StrEnum):
    """What the keys mean now."""

    BROWSE = "browse"
    MESSAGE = "message"
    FILTER = "filter"
    CONFIRM = "confirm"
    HELP = "help"


class CommandKind(StrEnum):
    """What a command does."""

    QUIT = "quit"
    CANCEL = "cancel"
    SEND = "send"
    ANSWER = "answer"


class Command(NamedTuple):
    """Something that a key asks for, other than another view."""

    kind: CommandKind
    job_id: str = ""
    text: str = ""
    """The message to send, or the id of the question that is answered."""
    allow: bool = False
    """The answer to the question."""


class View(NamedTuple):
    """What a person looks at."""

    mode: Mode = Mode.BROWSE
    selected: str = ""
    """The job under the cursor."""
    opened: str = ""
    """The job that fills the screen; empty for the list."""
    scroll: int = 0
    """Lines between the end of an opened job and the bottom of the screen."""
    typed: str = ""
    filter: str = ""
    notice: str = ""
    """The result of the last command."""

    @property
    def target(self) -> str:
        """The job that a command acts on."""
        return self.opened or self.selected


def keys_in(data: bytes) -> Iterator[str]:
    """Yield the keys that a terminal sent: names of special keys, and single characters."""
    for match in _KEY.finditer(data):
        key = match[0]
        if (name := _SPECIAL.get(key)) is not None:
            yield name
        elif key[0] >= 0x20 and not key.startswith(b"\x1b"):
            yield key.decode("utf-8", "replace")


def press(
    view: View, key: str, ids: Sequence[str], questions: Mapping[str, str]
) -> tuple[View, Command | None]:
    """Return the view after a key, and the command of the key.

    Args:
        view: The view before.
        key: As `keys_in` gives it.
        ids: The jobs of the list, from top to bottom.
        questions: Job id -> id of the question that waits for a person.
    """
    if view.mode in (Mode.MESSAGE, Mode.FILTER):
        return _type(view, key)
    if key == "q":
        return view, Command(CommandKind.QUIT)
    if view.mode is Mode.CONFIRM:
        plain = view._replace(mode=Mode.BROWSE, notice="")
        return plain, Command(CommandKind.CANCEL, view.target) if key == "y" else None
    if view.mode is Mode.HELP:
        return view._replace(mode=Mode.BROWSE), None
    return _browse(view._replace(notice=""), key, ids, questions)


def _type(view: View, key: str) -> tuple[View, Command | None]:
    browsing = view._replace(mode=Mode.BROWSE, typed="")
    text = view.typed.strip()
    match key:
        case "escape" if view.mode is Mode.FILTER:
            return browsing._replace(filter=""), None
        case "escape":
            return browsing, None
        case "enter" if view.mode is Mode.FILTER:
            return browsing._replace(filter=text), None
        case "enter":
            return browsing, Command(CommandKind.SEND, view.target, text=text) if text else None
        case "backspace":
            return _typed(view, view.typed[:-1]), None
        case "clear":
            return _typed(view, ""), None
        case _:
            pass
    return (_typed(view, view.typed + key) if len(key) == 1 else view), None


def _typed(view: View, text: str) -> View:
    view = view._replace(typed=text[:MAX_TYPED_CHARS])
    # The list narrows while the words are typed.
    return view._replace(filter=text) if view.mode is Mode.FILTER else view


def _browse(
    view: View, key: str, ids: Sequence[str], questions: Mapping[str, str]
) -> tuple[View, Command | None]:
    match key:
        case "?":
            return view._replace(mode=Mode.HELP), None
        case "/" if not view.opened:
            return view._replace(mode=Mode.FILTER, typed=view.filter), None
        case "escape" if view.opened:
            return view._replace(opened="", scroll=0), None
        case "escape":
            return view._replace(filter=""), None
        case _ if not view.target:
            return view, None
        case "enter":
            return view._replace(opened=view.target, scroll=0), None
        case "m":
            return view._replace(mode=Mode.MESSAGE, typed=""), None
        case "c":
            return view._replace(mode=Mode.CONFIRM), None
        case "y" | "n":
            if (question_id := questions.get(view.target)) is None:
                return view._replace(notice="It asks nothing."), None
            return view, Command(CommandKind.ANSWER, view.target, question_id, allow=key == "y")
        case _:
            pass
    return _move(view, key, ids), None


def _move(view: View, key: str, ids: Sequence[str]) -> View:
    if view.opened:
        step = {**_MOVES, "home": -(10**6), "g": -(10**6), "end": 10**6, "G": 10**6}.get(key, 0)
        return view._replace(scroll=max(view.scroll - step, 0))
    if not ids:
        return view
    place = ids.index(view.selected) if view.selected in ids else 0
    match key:
        case "home" | "g":
            place = 0
        case "end" | "G":
            place = len(ids) - 1
        case _:
            place = min(max(place + _MOVES.get(key, 0), 0), len(ids) - 1)
    return view._replace(selected=ids[place])


def follow(view: View, ids: Sequence[str]) -> View:
    """Return the view after the list has changed; the cursor stays on its job if it is there."""
    if view.selected in ids or not ids:
        return view
    return view._replace(selected=ids[0])
