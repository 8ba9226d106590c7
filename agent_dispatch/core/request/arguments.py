"""Decodes the arguments of a call as models write them, and names those that are wrong."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Generic, TypeVar

import msgspec

from agent_dispatch.core.text import SURROGATE, clip
from agent_dispatch.errors import InvalidRequestError
from agent_dispatch.model.names import nearest

ParamsT = TypeVar("ParamsT", bound=msgspec.Struct)

_SHOWN_CHARS = 60
_SHOWN_NAMES = 5

_KIND_WORDS: Mapping[type[msgspec.inspect.Type], str] = {
    msgspec.inspect.IntType: "a whole number",
    msgspec.inspect.FloatType: "a number",
    msgspec.inspect.BoolType: "true or false",
    msgspec.inspect.StrType: "text",
    msgspec.inspect.ListType: "a list",
    msgspec.inspect.DictType: "an object",
}


class ArgumentDecoder(Generic[ParamsT]):
    """Turns the arguments of a tool, or an item of a list, into a struct.

    It accepts a value whose meaning is clear: `"15"` for 15, `"true"` for true, null for a default.
    """

    def __init__(
        self, tool: str, params: type[ParamsT], foreign: Mapping[str, str] | None = None
    ) -> None:
        """Read the struct's fields.

        Args:
            tool: The subject of a sentence such as "... takes: agent, task?".
            foreign: Arguments of other tools, and a hint for each.
        """
        self._tool = tool
        self._foreign = foreign or {}
        self._params = params
        self._fields = msgspec.structs.fields(params)
        self._names = [field.name for field in self._fields]
        listed = [f.name if f.required else f"{f.name}?" for f in self._fields]
        self._usage = f"{tool} takes: {', '.join(listed) or 'no arguments'}."

    def decode(self, arguments: object) -> ParamsT:
        """Return the arguments of one call, with all defaults.

        Raises:
            InvalidRequestError: Names everything that is wrong with the call.
        """
        if arguments is None:
            arguments = {}
        if not isinstance(arguments, Mapping):
            raise InvalidRequestError(
                f"{self._tool} takes an object, got {_show(arguments)}. {self._usage}"
            )
        problems = list(_unknown_names(arguments, self._names, self._foreign))
        values: dict[str, object] = {}
        for field in self._fields:
            value = arguments.get(field.name)
            if value is not None:
                try:
                    values[field.name] = _convert(field, value)
                except ValueError as error:
                    problems.append(str(error))
            elif field.required:
                problems.append(f"missing argument '{field.name}'")
        if problems:
            listed = "; ".join(problems)
            raise InvalidRequestError(f"{listed[0].upper()}{listed[1:]}. {self._usage}")
        return self._params(**values)


def nearest_name(name: str, known: Iterable[str]) -> str:
    """Return ` (did you mean 'x'?)`, or nothing if no known name resembles `name`."""
    near = nearest(name, known)
    return "" if near is None else f" (did you mean {near!r}?)"


def _unknown_names(
    arguments: Mapping[object, object], known: list[str], foreign: Mapping[str, str]
) -> Iterator[str]:
    unknown = [name for name in arguments if name not in known]
    for name in unknown[:_SHOWN_NAMES]:
        hint = foreign.get(str(name)) or nearest_name(str(name), known)
        yield f"unknown argument {clip(repr(name), _SHOWN_CHARS)}{hint}"
    if len(unknown) > _SHOWN_NAMES:
        yield f"{len(unknown) - _SHOWN_NAMES} more unknown arguments"


def _convert(field: msgspec.structs.FieldInfo, value: object) -> object:
    """Convert a value to the type of its field.

    Raises:
        ValueError: It cannot be converted; the message names the argument.
    """
    for text in _texts(value):
        if "\0" in text:
            raise ValueError(f"argument '{field.name}' contains a NUL character; leave it out")
        if SURROGATE.search(text):
            raise ValueError(
                f"argument '{field.name}' contains an unpaired surrogate, which is not text;"
                " leave it out"
            )
    try:
        converted: object = msgspec.convert(value, field.type, strict=False)
    except msgspec.ValidationError as error:
        wanted = " or ".join(_kinds(msgspec.inspect.type_info(field.type)))
        raise ValueError(f"argument '{field.name}' must be {wanted}, got {_show(value)}") from error
    if isinstance(converted, float) and not math.isfinite(converted):
        raise ValueError(f"argument '{field.name}' must be a finite number, got {_show(value)}")
    return converted


def _kinds(wanted: msgspec.inspect.Type) -> Iterator[str]:
    """Yield words for the values of a type, one for each alternative."""
    match wanted:
        case msgspec.inspect.Metadata():
            yield from _kinds(wanted.type)
        case msgspec.inspect.UnionType():
            for alternative in wanted.types:
                yield from _kinds(alternative)
        case _:
            yield _KIND_WORDS.get(type(wanted), "a value of another type")


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts(key)
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def _show(value: object) -> str:
    """Return a short, printable form in which the caller recognizes its own value."""
    match value:
        case str():
            kind = "text"
        case bool() | None:
            return "null" if value is None else str(value).lower()
        case int() | float():
            kind = "the number"
        case Mapping():
            return "an object"
        case list():
            return "a list"
        case _:
            kind = type(value).__name__
    return f"{kind} {clip(repr(value), _SHOWN_CHARS)}"
