"""Checks a JSON Schema as Claude Code does, so that a bad schema is refused before a run starts.

The CLI compiles the schema first, strictly and as draft-07: it exits at an unknown keyword, at a
`$schema` of another draft, or at a `$ref` without a target (measured with 2.1.330). Most schemas
are the same in drafts 2019-09 and 2020-12, so these are passed on without `$schema`. Rare faults
are left to the CLI, whose message is reported as `error_type: schema`: the syntax of regular
expressions, and keywords that need another keyword.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn
from urllib.parse import unquote, urldefrag, urljoin

import msgspec

from agent_dispatch.core.request.arguments import nearest_name
from agent_dispatch.core.text import clip
from agent_dispatch.errors import SchemaError

_DRAFTS = {
    "json-schema.org/draft-06/schema": "draft-06",
    "json-schema.org/draft-07/schema": "draft-07",
    "json-schema.org/draft/2019-09/schema": "2019-09",
    "json-schema.org/draft/2020-12/schema": "2020-12",
}
_KNOWN_META_SCHEMA = "http://json-schema.org/draft-07/schema"
_NO_SCHEMAS = ("const", "default", "enum", "examples")
_TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")
_INSTEAD = {
    "prefixItems": 'write {"items": [...]} instead',
    "dependentRequired": "write dependencies instead",
    "dependentSchemas": "write dependencies instead",
    "$anchor": "refer to it by its path, as in #/$defs/name",
    "$dynamicAnchor": "refer to it by its path, as in #/$defs/name",
    "$dynamicRef": "write $ref instead",
    "$recursiveRef": "write $ref instead",
    "unevaluatedProperties": "write additionalProperties instead",
    "unevaluatedItems": "write additionalItems instead",
    "id": "write $id instead",
    "example": "write examples, a list, instead",
    "discriminator": "leave it out: oneOf or anyOf are enough",
}
_SHOWN_CHARS = 100


def without_dialect(schema: str) -> str:
    """Return a checked schema without `$schema`, as Claude Code takes it."""
    fields: dict[str, msgspec.Raw] = msgspec.json.decode(schema, type=dict[str, msgspec.Raw])
    if fields.pop("$schema", None) is None:
        return schema
    return msgspec.json.encode(fields).decode()


def check_schema(schema: dict[str, Any]) -> None:
    """Check that Claude Code takes a schema.

    Raises:
        SchemaError: It does not; the message says where the fault is.
    """
    _check_dialect(schema)
    _Walk(schema).go()


def _check_dialect(schema: dict[str, Any]) -> None:
    if "$schema" not in schema:
        return
    dialect = schema["$schema"]
    if not isinstance(dialect, str):
        raise _fault(f'has a "$schema" that is not text: {_shown(dialect)}')
    if dialect.partition("://")[2].rstrip("#") not in _DRAFTS or "://" not in dialect:
        known = ", ".join(_DRAFTS.values())
        raise _fault(
            f'is written for {_shown(dialect)} ("$schema"), which Claude Code does not take:'
            f" rewrite it for one of {known}"
        )


class _Place(msgspec.Struct, frozen=True):
    """A schema within the schema."""

    schema: Any
    path: str
    base: str
    """The base URI of a relative `$ref`."""
    is_used: bool
    """It applies to an answer; a `$ref` in an unused definition need not resolve."""


class _Walk:
    """Visits every schema within a schema, without recursion, as it may be deeply nested."""

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        self._resources = dict[str, Any]()
        self._waiting = [_Place(root, "", "", is_used=True)]
        self._done = set[tuple[int, bool]]()

    def go(self) -> None:
        self._collect_ids()
        while self._waiting:
            place = self._waiting.pop()
            key = (id(place.schema), place.is_used)
            if isinstance(place.schema, bool) or key in self._done:
                continue
            if not isinstance(place.schema, dict):
                _fail(place.path, "must be a schema: an object, true or false", place.schema)
            self._done.add(key)
            self._check(place, place.schema)

    def _collect_ids(self) -> None:
        """Collect the ids by which parts of the schema may be referred to."""
        waiting: list[tuple[Any, str]] = [(self._root, "")]
        while waiting:
            value, base = waiting.pop()
            if isinstance(value, dict):
                if isinstance(value.get("$id"), str):
                    base = _join(base, value["$id"])
                    if self._resources.setdefault(base.rstrip("#"), value) != value:
                        raise _fault(f'has two schemas with the "$id" {_shown(base)}')
                waiting += [(v, base) for k, v in value.items() if k not in _NO_SCHEMAS]
            elif isinstance(value, list):
                waiting += [(item, base) for item in value]

    def _check(self, place: _Place, schema: dict[str, Any]) -> None:
        path, base = place.path, place.base
        if isinstance(schema.get("$id"), str):
            base = _join(base, schema["$id"])
        for keyword, value in schema.items():
            here = f"{path}/{_escaped(keyword)}"
            if (rule := _KEYWORDS.get(keyword)) is not None:
                fits, wanted = rule
                if not fits(value):
                    _fail(here, wanted, value)
            elif keyword not in _HOLDERS and place.is_used:
                instead = _INSTEAD.get(keyword)
                hint = f"; {instead}" if instead else nearest_name(keyword, _ALL_KEYWORDS)
                raise _fault(
                    f"uses {_shown(keyword)}{_at(path)}, a keyword that Claude Code does not know"
                    f" (it takes those of draft-07){hint}"
                )
            for name, inner in _schemas_in(keyword, value, here):
                is_used = place.is_used and keyword not in ("$defs", "definitions")
                self._waiting.append(_Place(inner, name, base, is_used))
        if place.is_used and isinstance(schema.get("$ref"), str):
            self._follow(schema["$ref"], base, f"{path}/$ref")

    def _follow(self, ref: str, base: str, path: str) -> None:
        document, fragment = urldefrag(_join(base, ref))
        if document == _KNOWN_META_SCHEMA:
            return
        target: Any = self._resources.get(f"{document}#{fragment}")
        if target is None:
            target = self._resources.get(document, self._root if document == "" else None)
            found = target is not None and (not fragment or fragment.startswith("/"))
            for step in unquote(fragment).split("/")[1:] if found else ():
                name = step.replace("~1", "/").replace("~0", "~")
                if isinstance(target, dict) and name in target:
                    target = target[name]
                elif isinstance(target, list) and name in map(str, range(len(target))):
                    target = target[int(name)]
                else:
                    found = False
                    break
            if not found:
                raise _fault(
                    f"refers to {_shown(ref)}{_at(path)}, which is nowhere in it; nothing is"
                    " fetched from elsewhere, so put that schema into its $defs"
                )
        where = fragment if fragment.startswith("/") else path
        self._waiting.append(_Place(target, where, document, is_used=True))


def _schemas_in(keyword: str, value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield the schemas in the value of a keyword, each with its path."""
    kind = _HOLDERS.get(keyword)
    if kind == "one":
        yield path, value
    elif kind == "list" or (kind == "one or list" and isinstance(value, list)):
        if not isinstance(value, list) or (not value and keyword != "items"):
            _fail(path, "must be a list of schemas, not an empty one", value)
        yield from ((f"{path}/{index}", item) for index, item in enumerate(value))
    elif kind == "one or list":
        yield path, value
    elif kind is not None:
        if not isinstance(value, dict):
            _fail(path, "must be an object of schemas", value)
        for name, inner in value.items():
            here = f"{path}/{_escaped(name)}"
            if kind != "map or names" or not isinstance(inner, list):
                yield here, inner
            elif not _are_names(inner):
                _fail(here, "must be a list of different names", inner)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return _is_number(value) and value >= 0 and value % 1 == 0


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value)) and len(set(value)) == len(value)


def _are_values(value: Any) -> bool:
    if not isinstance(value, list) or not value:
        return False
    # As JSON, 1 and true differ, and the order of an object's keys does not count.
    return len({msgspec.json.encode(v, order="deterministic") for v in value}) == len(value)


def _are_types(value: Any) -> bool:
    names = value if isinstance(value, list) else [value]
    return bool(names) and _are_names(names) and set(names) <= set(_TYPES)


_RULES: tuple[tuple[str, str, Callable[[Any], bool]], ...] = (
    ("$comment $id $ref $schema description format pattern title", "must be text", _is_text),
    ("contentEncoding contentMediaType", "must be text", _is_text),
    (
        "nullable readOnly uniqueItems writeOnly",
        "must be true or false",
        lambda value: isinstance(value, bool),
    ),
    ("exclusiveMaximum exclusiveMinimum maximum minimum", "must be a number", _is_number),
    ("multipleOf", "must be a number above 0", lambda value: _is_number(value) and value > 0),
    (
        "maxItems maxLength maxProperties minItems minLength minProperties",
        "must be a whole number, 0 or more",
        _is_count,
    ),
    ("required", "must be a list of different names", _are_names),
    ("enum", "must be a list of different values, not an empty one", _are_values),
    ("examples", "must be a list", lambda value: isinstance(value, list)),
    ("type", f"must be one or several of {', '.join(_TYPES)}", _are_types),
    ("$vocabulary const contentSchema default deprecated", "", lambda _value: True),
)
"""Keywords, the requirement on their values, and its test."""
_KEYWORDS = {name: (fits, wanted) for names, wanted, fits in _RULES for name in names.split()}
_HOLDERS: Mapping[str, str] = {
    **dict.fromkeys(("additionalItems", "additionalProperties", "contains", "else"), "one"),
    **dict.fromkeys(("if", "not", "propertyNames", "then"), "one"),
    **dict.fromkeys(("allOf", "anyOf", "oneOf"), "list"),
    **dict.fromkeys(("$defs", "definitions", "patternProperties", "properties"), "map"),
    "dependencies": "map or names",
    "items": "one or list",
}
"""Keywords whose values contain schemas, and in which form."""
_ALL_KEYWORDS = (*_KEYWORDS, *_HOLDERS)


def _join(base: str, ref: str) -> str:
    try:
        # urljoin() drops a base with a scheme that it does not know, such as urn:.
        joined = urldefrag(base).url + ref if ref.startswith("#") else urljoin(base, ref)
        urldefrag(joined)
    except ValueError as error:
        raise _fault(f'has an "$id" or "$ref" that is not an address: {_shown(ref)}') from error
    return joined


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _fault(what: str) -> SchemaError:
    return SchemaError(f"json_schema {what}.")


def _fail(path: str, wanted: str, value: Any) -> NoReturn:
    raise _fault(f"is not valid{_at(path)}: it {wanted}, not {_shown(value)}")


def _at(path: str) -> str:
    return f" at {clip(path, _SHOWN_CHARS)}" if path else ""


def _shown(value: Any) -> str:
    return clip(msgspec.json.encode(value).decode(), _SHOWN_CHARS)
