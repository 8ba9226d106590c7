"""JSON Schemas of tool arguments and answers, from their structs, as small as they can be."""

from collections.abc import Mapping
from typing import Any

import msgspec

_NULL: Mapping[str, Any] = {"type": "null"}


def input_schema(params: type[msgspec.Struct]) -> dict[str, Any]:
    """The schema of a tool's arguments: a flat object, its fields described."""
    return _flat(params)


def output_schema(result: type[msgspec.Struct]) -> dict[str, Any]:
    """The schema of a tool's answer.

    Fields that are None are left out of an answer, so null is no alternative here and a default
    says nothing.
    """
    schema = _flat(result)
    schema["properties"] = {
        name: _never_null(field) for name, field in schema["properties"].items()
    }
    return schema


def _flat(struct: type[msgspec.Struct]) -> dict[str, Any]:
    """The struct's schema with an object at the root, as MCP wants it, instead of a reference."""
    schema = msgspec.json.schema(struct)
    definitions = schema["$defs"]
    root: dict[str, Any] = definitions.pop(schema["$ref"].rpartition("/")[2])
    # The tool has its own title and description.
    for key in ("title", "description"):
        root.pop(key, None)
    if definitions:
        root["$defs"] = definitions
    return root


def _never_null(field: Mapping[str, Any]) -> dict[str, Any]:
    slim = {key: value for key, value in field.items() if key != "default"}
    alternatives = [one for one in slim.pop("anyOf", ()) if one != _NULL]
    if len(alternatives) == 1:
        return {**slim, **alternatives[0]}
    return {**slim, "anyOf": alternatives} if alternatives else slim
