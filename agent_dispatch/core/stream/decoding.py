"""Decodes one line of stdout into events, whatever is wrong with the line.

A well-formed line of moderate size is decoded directly into its struct. Any other line is decoded
field by field. Then a field of an unexpected type keeps its default and the event is not lost, and
a line of any size needs memory only for the fields that are kept.
"""

import math
import re
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, get_args, get_origin

import msgspec

from agent_dispatch.core.stream.events import Event, JsonEvent, NoiseLine, OtherEvent
from agent_dispatch.core.stream.json_text import JsonBytes, elements, repair, value_end

_MODERATE_BYTES = 1 << 20
"""JSON up to this size is decoded at once: it expands to 20 times its size at worst."""
_MAX_ELEMENTS = 1000
"""Kept of one list."""
_MAX_OBJECTS = 100_000
"""Searched in one line that is not an event by itself."""
_NOISE_BYTES = 2000
"""Kept of a line without an event."""

_REPAIRABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_OBJECT_START = re.compile(rb'\{\s*"')
_LEAD = re.compile(rb"(?:\xef\xbb\xbf)?\s*")

_Read = Callable[[JsonBytes], Any]
"""Decodes JSON into a value; raises `msgspec.ValidationError` if it has another type."""


class _Head(msgspec.Struct):
    type: Any = None


_head_decoder: msgspec.json.Decoder[_Head] = msgspec.json.Decoder(_Head)
_event_decoder: msgspec.json.Decoder[JsonEvent] = msgspec.json.Decoder(JsonEvent)
_text_decoder: msgspec.json.Decoder[str] = msgspec.json.Decoder(str)
_list_decoder: msgspec.json.Decoder[list[msgspec.Raw]] = msgspec.json.Decoder(list[msgspec.Raw])
_dict_decoder: msgspec.json.Decoder[dict[str, msgspec.Raw]] = msgspec.json.Decoder(
    dict[str, msgspec.Raw]
)


def decode_line(line: bytearray | memoryview) -> list[Event]:
    """Return the events of one line, without its line feed; a blank line has none.

    A line that is not one JSON object is searched for objects that are events: an array of them,
    one after a warning, or one before trailing text. If it has none, it is a `NoiseLine`.

    Args:
        line: A `bytearray` may be modified.
    """
    lead = _LEAD.match(line)
    begin = 0 if lead is None else lead.end()
    if begin == len(line):
        return []
    if line[begin] == ord("{"):
        event = _decode_object(line if begin == 0 else memoryview(line)[begin:])
        if event is not None and event != OtherEvent(""):
            return [event]
    return list(embedded_events(line)) or [NoiseLine(as_text(line, _NOISE_BYTES))]


def _decode_object(data: JsonBytes) -> JsonEvent | OtherEvent | None:
    """Decode one JSON object; None if `data` is not one. Without a type it is `OtherEvent("")`.

    Args:
        data: A `bytearray` may be modified.
    """
    try:
        return _decode_well_formed(data)
    except msgspec.ValidationError:
        return None
    except _REPAIRABLE:
        repaired = data if isinstance(data, bytearray) else bytearray(data)
    try:
        return _decode_by_field(repaired) if repair(repaired) else None
    except _REPAIRABLE:
        return None


def embedded_events(data: JsonBytes) -> Iterator[JsonEvent]:
    """Yield the events among the outermost JSON objects in `data`, in order.

    Bounded: the search gives up after a few passes over text full of unclosed braces.
    """
    budget_bytes = 4 * len(data) + _MODERATE_BYTES
    view = memoryview(data)
    position = 0
    for _ in range(_MAX_OBJECTS):
        found = _OBJECT_START.search(data, position)
        if found is None or budget_bytes < 0:
            return
        begin = found.start()
        end = value_end(data, begin)
        budget_bytes -= (len(data) if end is None else end) - begin
        event = None if end is None else _decode_object(view[begin:end])
        if event is None or end is None:
            position = begin + 1
            continue
        position = end
        if not isinstance(event, OtherEvent):
            yield event


def as_text(data: JsonBytes, limit_bytes: int) -> str:
    """Return the beginning of `data` as text, trimmed."""
    return bytes(memoryview(data)[:limit_bytes]).decode("utf-8", "replace").strip("\ufeff \t\r\n")


def _decode_well_formed(data: JsonBytes) -> JsonEvent | OtherEvent:
    """Decode a JSON object.

    Raises:
        msgspec.ValidationError: `data` is JSON, but not an object.
        msgspec.DecodeError: `data` is not JSON; the other `_REPAIRABLE` errors mean the same.
    """
    if len(data) <= _MODERATE_BYTES:
        try:
            return _event_decoder.decode(data)
        except msgspec.ValidationError:
            pass  # A field of another type, or an unknown event.
    return _decode_by_field(data)


def _decode_by_field(data: JsonBytes) -> JsonEvent | OtherEvent:
    """Decode the fields that have the expected types; raises as `_decode_well_formed` does."""
    kind = _head_decoder.decode(data).type
    read = _EVENT_READERS.get(kind) if isinstance(kind, str) else None
    if read is None:
        return OtherEvent(kind if isinstance(kind, str) else "")
    event: JsonEvent = read(data)
    return event


def _reader(kind: Any) -> _Read:
    """Return the function that decodes a field of type `kind`."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _struct_reader(kind)
    if kind is str:
        return _read_text
    arguments = get_args(kind)
    if get_origin(kind) is tuple:
        return _read_texts if arguments[0] is str else _structs_reader(_reader(arguments[0]))
    if get_origin(kind) is dict:
        return _mapping_reader(_reader(arguments[1]))
    if type(None) in arguments and len(arguments) == 2:
        inner = next(argument for argument in arguments if argument is not type(None))
        if get_origin(inner) or issubclass(inner, msgspec.Struct):
            return _optional_reader(_reader(inner))
    decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(kind, strict=False)
    return _finite_reader(decoder.decode) if float in (kind, *arguments) else decoder.decode


def _struct_reader(kind: type[msgspec.Struct]) -> _Read:
    fields = msgspec.structs.fields(kind)
    readers = {field.name: _reader(field.type) for field in fields}
    undecoded = msgspec.defstruct(
        f"Undecoded{kind.__name__}",
        [
            (f.name, msgspec.Raw, msgspec.field(name=f.encode_name, default=msgspec.Raw()))
            for f in fields
        ],
    )
    decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(undecoded)

    def read(data: JsonBytes) -> msgspec.Struct:
        raws = decoder.decode(data)
        values: dict[str, Any] = {}
        for name, read_field in readers.items():
            raw = memoryview(getattr(raws, name))
            if len(raw):
                try:
                    values[name] = read_field(raw)
                except msgspec.ValidationError:
                    continue  # The field keeps its default.
        return kind(**values)

    return read


def _structs_reader(read: _Read) -> _Read:
    def read_structs(data: JsonBytes) -> tuple[Any, ...]:
        if data[0] != ord("["):
            raise msgspec.ValidationError("not an array")
        view = memoryview(data)
        spans = islice(elements(data), _MAX_ELEMENTS)
        return tuple(read(view[begin:end]) for begin, end in spans)

    return read_structs


def _mapping_reader(read: _Read) -> _Read:
    def read_mapping(data: JsonBytes) -> dict[str, Any]:
        _require_moderate(data)
        values = _dict_decoder.decode(data)
        return {key: read(memoryview(value)) for key, value in values.items()}

    return read_mapping


def _optional_reader(read: _Read) -> _Read:
    return lambda data: None if data[0] == ord("n") else read(data)


def _finite_reader(read: _Read) -> _Read:
    """Let `read` refuse numbers that are not finite: the lax decoder accepts the text "NaN"."""

    def read_finite(data: JsonBytes) -> float | None:
        number: float | None = read(data)
        if number is not None and not math.isfinite(number):
            raise msgspec.ValidationError("not a finite number")
        return number

    return read_finite


def _read_text(data: JsonBytes) -> str:
    """Return the text of a string, "" for null, and the JSON of any other value."""
    if data[0] == ord('"'):
        return _text_decoder.decode(data)
    return "" if data[0] == ord("n") else bytes(data).decode()


def _read_texts(data: JsonBytes) -> tuple[str, ...]:
    _require_moderate(data)
    return tuple(_read_text(memoryview(value)) for value in _list_decoder.decode(data))


def _require_moderate(data: JsonBytes) -> None:
    if len(data) > _MODERATE_BYTES:
        raise msgspec.ValidationError("larger than any real value")


_EVENT_READERS: dict[str, _Read] = {
    str(kind.__struct_config__.tag): _struct_reader(kind) for kind in get_args(JsonEvent)
}
