"""A text under change: one table of it at a time, every other byte stays.

Each change splices the text, parses the result, and compares it with the intended data. A text
that says anything else is not accepted. Keys that nobody asked to change stay, and so do comments.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

KeyPath = tuple[str, ...]
BYTE_ORDER_MARK = "\ufeff"


class SpliceError(Exception):
    """The text has a shape that cannot be changed in place; it is unchanged."""


class Syntax(msgspec.Struct, frozen=True):
    """How a text of one language is read and spliced."""

    table: str
    """What a table is called, with its article."""
    parse: Callable[[str], dict[str, Any]]
    """Raises `ValueError` for a text that is not in this language."""
    set_key: Callable[[str, KeyPath, object], str]
    """Gives a key a value; missing tables around it are made."""
    add_table: Callable[[str, KeyPath, Mapping[str, Any]], str]
    """Writes a table that does not exist yet."""
    remove: Callable[[str, KeyPath], str]
    """Removes a key or a table that exists."""


class Draft:
    """A text under change, with the data that it says. A byte order mark stays.

    Raises:
        ValueError: From the constructor: the text does not parse.
    """

    def __init__(self, text: str, syntax: Syntax) -> None:
        self._text = text.removeprefix(BYTE_ORDER_MARK)
        self._mark = text[: len(text) - len(self._text)]
        self._syntax = syntax
        self._data = syntax.parse(self._text)

    @property
    def text(self) -> str:
        """The text with all changes so far."""
        return self._mark + self._text

    @property
    def data(self) -> Mapping[str, Any]:
        """What the text says."""
        return self._data

    def set_keys(self, table: KeyPath, changes: Mapping[str, Any]) -> None:
        """Give keys of a table new values; None removes a key, a missing table is made.

        Raises:
            SpliceError: The text cannot be changed like that in place.
        """
        text, intended = self._text, copy.deepcopy(self._data)
        place = self._open(intended, table)
        # New keys first: their place is beside old ones, which may be removed.
        for key, value in sorted(changes.items(), key=lambda change: change[1] is None):
            if value is not None:
                text = self._syntax.set_key(text, (*table, key), value)
                place[key] = value
            elif key in place:
                text = self._syntax.remove(text, (*table, key))
                del place[key]
        self._accept(text, intended, table)

    def add_table(self, table: KeyPath, values: Mapping[str, Any]) -> None:
        """Write a table that does not exist yet.

        Raises:
            SpliceError: The text cannot be changed like that in place.
        """
        intended = copy.deepcopy(self._data)
        self._open(intended, table[:-1])[table[-1]] = dict(values)
        self._accept(self._syntax.add_table(self._text, table, values), intended, table)

    def remove_table(self, table: KeyPath) -> None:
        """Remove a table that exists, whatever its value is and however it is written.

        Raises:
            SpliceError: The text cannot be changed like that in place.
        """
        intended = copy.deepcopy(self._data)
        del self._open(intended, table[:-1])[table[-1]]
        self._accept(self._syntax.remove(self._text, table), intended, table[:-1])

    def _open(self, data: dict[str, Any], table: KeyPath) -> dict[str, Any]:
        """Find a table in the data; missing ones are made."""
        for index, part in enumerate(table):
            data = data.setdefault(part, {})
            if not isinstance(data, dict):
                path = ".".join(table[: index + 1])
                raise SpliceError(f"{path} is not {self._syntax.table}")
        return data

    def _accept(self, text: str, intended: dict[str, Any], table: KeyPath) -> None:
        try:
            data = self._syntax.parse(text)
        except ValueError as error:
            raise SpliceError(f"the changed text would not parse: {error}") from error
        _forget_emptied(intended, data, table)
        if not _same(data, intended):
            raise SpliceError("the changed text would not say what was intended")
        self._text, self._data = text, data


def newline_of(text: str) -> str:
    """Return how the lines of a text end."""
    return "\r\n" if "\r\n" in text else "\n"


def _forget_emptied(intended: dict[str, Any], data: dict[str, Any], table: KeyPath) -> None:
    """Drop tables on the way to `table` that became empty, if the text no longer has them.

    In TOML, a table without a header ends with its last key.
    """
    if not table:
        return
    inner, inner_data = intended.get(table[0]), data.get(table[0], {})
    if isinstance(inner, dict) and isinstance(inner_data, dict):
        _forget_emptied(inner, inner_data, table[1:])
    if inner == {} and table[0] not in data:
        del intended[table[0]]


def _same(left: object, right: object) -> bool:
    """Compare strictly: 1 is neither 1.0 nor true, and nan is nan."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same, left, right))
    return left == right or repr(left) == repr(right)
