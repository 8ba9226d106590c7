"""JSON Schemas of tool arguments, from their structs, as small as they can be."""

from typing import Any

import msgspec


def input_schema(
    params: type[msgspec.Struct], described: type[msgspec.Struct] | None = None
) -> dict[str, Any]:
    """Return the schema of a tool's arguments: an object at the root, as MCP wants it.

    A default that is empty, 0 or false is left out: the description says what it means.

    Args:
        params: The arguments.
        described: The arguments of another tool. Those that are the same there are listed without
            their description.
    """
    schema = _object_schema(params)
    elsewhere = _object_schema(described)["properties"] if described else {}
    for name, field in schema["properties"].items():
        if field == elsewhere.get(name):
            field.pop("description", None)
        if not field.get("default", True):
            del field["default"]
    return schema


def _object_schema(params: type[msgspec.Struct]) -> dict[str, Any]:
    schema = msgspec.json.schema(params)
    root: dict[str, Any] = schema["$defs"][schema["$ref"].rpartition("/")[2]]
    # The tool has its own title and description.
    return {key: value for key, value in root.items() if key not in ("title", "description")}
