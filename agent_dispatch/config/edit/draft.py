"""One table of a TOML text changed, every other byte left as it is.

Each operation splices the text, parses what came out and compares it with the data that was
meant; a text that would say anything else is not accepted. Comments inside a table and keys that
nobody asked to change stay; a comment on the line of a key goes with the key. With a removed table
go the comments that are plainly its own: those right below its last line, and a block right above
its header that a blank line parts from what stands before.
"""

import copy
import tomllib
from collections.abc import Mapping
from typing import Any

from agent_dispatch.config.edit.toml import add_table, dotted, remove, set_key
from agent_dispatch.config.edit.toml_scan import KeyPath


class SpliceError(Exception):
    """The text has a shape that cannot be changed in place; it is as it was."""


def parse_toml(text: str) -> dict[str, Any]:
    """Parse a TOML text.

    Raises:
        ValueError: It is not TOML; the message says where.
    """
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("arrays or inline tables are nested too deeply") from None


class Draft:
    """A TOML text under change, with the data it says.

    Raises:
        ValueError: From the constructor: the text is not TOML.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._data = parse_toml(text)

    @property
    def text(self) -> str:
        """The text with all changes so far."""
        return self._text

    @property
    def data(self) -> Mapping[str, Any]:
        """What the text says."""
        return self._data

    def set_keys(self, table: KeyPath, changes: Mapping[str, Any]) -> None:
        """Give keys of a table new values; None takes a key out, a missing table is made.

        Raises:
            SpliceError: The text cannot be changed like that in place.
        """
        text, meant = self._text, copy.deepcopy(self._data)
        place = _open(meant, table)
        # New keys first: they find their place beside old ones, which may be taken out.
        for key, value in sorted(changes.items(), key=lambda change: change[1] is None):
            if value is None:
                text = remove(text, (*table, key))
                place.pop(key, None)
            else:
                text = set_key(text, table, key, value)
                place[key] = value
        self._accept(text, meant, table)

    def add_table(self, table: KeyPath, values: Mapping[str, Any]) -> None:
        """Write a table that is not there yet.

        Raises:
            SpliceError: The text cannot be changed like that in place.
        """
        meant = copy.deepcopy(self._data)
        _open(meant, table[:-1])[table[-1]] = dict(values)
        self._accept(add_table(self._text, table, values), meant, table)

    def remove_table(self, table: KeyPath) -> None:
        """Take a table out, whatever its value is and however it is written.

        Raises:
            SpliceError: The text cannot be changed like that in place.
        """
        meant = copy.deepcopy(self._data)
        _open(meant, table[:-1]).pop(table[-1], None)
        self._accept(remove(self._text, table), meant, table[:-1])

    def _accept(self, text: str, meant: dict[str, Any], table: KeyPath) -> None:
        try:
            said = parse_toml(text)
        except ValueError as error:
            raise SpliceError(f"the changed text would not parse: {error}") from error
        _forget_emptied(meant, said, table)
        if not _same(said, meant):
            raise SpliceError("the changed text would say something else than was meant")
        self._text, self._data = text, said


def _open(data: dict[str, Any], table: KeyPath) -> dict[str, Any]:
    """Find the table in the data; what is missing on the way is made."""
    for index, part in enumerate(table):
        data = data.setdefault(part, {})
        if not isinstance(data, dict):
            raise SpliceError(f"{dotted(table[: index + 1])} is not a table")
    return data


def _forget_emptied(meant: dict[str, Any], said: dict[str, Any], table: KeyPath) -> None:
    """Drop what was left empty on the way to `table`: without a header or a key, no table."""
    if not table:
        return
    inner, said_inner = meant.get(table[0]), said.get(table[0], {})
    if isinstance(inner, dict) and isinstance(said_inner, dict):
        _forget_emptied(inner, said_inner, table[1:])
    if inner == {} and table[0] not in said:
        del meant[table[0]]


def _same(left: object, right: object) -> bool:
    """Compare as TOML does: 1 is neither 1.0 nor true, and nan is nan."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same, left, right))
    return left == right or repr(left) == repr(right)
