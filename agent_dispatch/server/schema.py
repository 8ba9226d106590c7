"""JSON Schemas of tool arguments and answers, from their structs, as small as they can be."""

from collections.abc import Mapping
from types import UnionType
from typing import Any, get_args

import msgspec

_NULL: Mapping[str, Any] = {"type": "null"}


def input_schema(params: type[msgspec.Struct]) -> dict[str, Any]:
    """The schema of a tool's arguments: a flat object, its fields described."""
    return _flat(params)


def output_schema(result: type[msgspec.Struct] | UnionType) -> dict[str, Any]:
    """The schema of a tool's answer; of several structs, what fits each of them.

    Fields that are None are left out of an answer, so null is no alternative here and a default
    says nothing. What is inside of a field's object is left open: it would double the size.
    """
    schemas = [_flat(struct) for struct in get_args(result) or (result,)]
    fields: dict[str, Any] = {}
    for schema in schemas:
        kinds = schema.get("$defs", {})
        for name, field in schema["properties"].items():
            fields.setdefault(name, _never_null(field, kinds))
    required = [
        name
        for name in schemas[0].get("required", ())
        if all(name in schema.get("required", ()) for schema in schemas)
    ]
    return {"type": "object", "properties": fields, "required": required}


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


def _never_null(field: Mapping[str, Any], kinds: Mapping[str, Any]) -> dict[str, Any]:
    slim = {key: value for key, value in field.items() if key != "default"}
    alternatives = [one for one in slim.pop("anyOf", ()) if one != _NULL]
    if len(alternatives) == 1:
        slim |= alternatives[0]
    elif alternatives:
        slim["anyOf"] = [_never_null(one, kinds) for one in alternatives]
    if isinstance(items := slim.get("items"), Mapping):
        slim["items"] = _never_null(items, kinds)
    if reference := slim.pop("$ref", None):
        kind = kinds[reference.rpartition("/")[2]]
        # The names of an enumeration are explained where its values matter.
        slim["type"] = "string" if "enum" in kind else "object"
    return slim
