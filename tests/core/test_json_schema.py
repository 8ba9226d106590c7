import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_dispatch.core.request.checks import check_request
from agent_dispatch.core.request.json_schema import check_schema, without_dialect
from agent_dispatch.errors import InvalidRequestError
from agent_dispatch.model.dispatch import DispatchRequest

TEXT = {"type": "string"}


def of_a(schema: Any, **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": schema}, **more}


# What the real CLI (2.1.330) takes and what it does not was measured for each of these.
TAKEN: list[dict[str, Any]] = [
    {},
    TEXT,
    {"type": ["object", "null"], "required": ["b"]},
    of_a(True),
    of_a({"type": "string", "format": "whatever", "nullable": True}),
    of_a({"$ref": "#/$defs/x"}, **{"$defs": {"x": TEXT}}),
    of_a({"$ref": "#/definitions/x"}, definitions={"x": TEXT}),
    of_a({"$ref": "#/$defs/a~1b%20c"}, **{"$defs": {"a/b c": TEXT}}),
    of_a({"$ref": "#"}),
    of_a({"$ref": "https://x.test/s#/$defs/x"}, **{"$id": "https://x.test/s", "$defs": {"x": {}}}),
    of_a({"$ref": "t"}, **{"$id": "https://x.test/s", "$defs": {"x": {"$id": "t"}}}),
    of_a({}, **{"$defs": {"unused": {"$ref": "#/$defs/nope", "foo": 1}}}),
    {"$ref": "http://json-schema.org/draft-07/schema#"},
    of_a({"type": "array", "items": [TEXT], "additionalItems": False}),
    of_a({"type": "string", "pattern": "^\\p{L}+(?:-(?<n>\\d{1,3}))*?[\\-a-z]$"}),
    {"dependencies": {"a": ["b"], "c": TEXT}, "patternProperties": {"^x": {}}},
    {"if": {"properties": {"a": {}}}, "then": {}, "else": False},
    {"allOf": [{}], "$defs": {"unused": {}}, "not": {"$ref": "#/allOf/0"}},
    {"properties": {"enum": TEXT, "$ref": TEXT, "foo": {"const": {"$ref": "#/nope"}}}},
]

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"type": "objekt"}, '/type: it must be one or several of .* not "objekt"'),
    (of_a({"type": "string", "required": True}), "/properties/a/required"),
    (of_a({"exclusiveMinimum": True}), "/properties/a/exclusiveMinimum: it must be a number"),
    ({"properties": []}, "/properties: it must be an object of schemas"),
    ({"properties": {"a": "string"}}, "/properties/a: it must be a schema"),
    ({"enum": []}, "/enum"),
    ({"enum": ["a", "a"]}, "different values"),
    ({"anyOf": []}, "/anyOf"),
    ({"minLength": -1}, "/minLength"),
    ({"multipleOf": 0}, "/multipleOf"),
    ({"id": "x"}, r'uses "id".*\$id'),
    ({"propertys": {}}, "did you mean 'properties'"),
    (of_a({"prefixItems": [TEXT]}), 'uses "prefixItems" at /properties/a'),
    ({"unevaluatedProperties": False}, "additionalProperties"),
    (of_a({"$ref": "#/$defs/x"}), 'refers to "#/\\$defs/x" at /properties/a/\\$ref'),
    (of_a({"$ref": "#/$defs/x"}, **{"$defs": {"x": {"foo": 1}}}), 'uses "foo" at /\\$defs/x'),
    (of_a({"$ref": "https://x.test/x.json"}), "x.json"),
    (of_a({"$ref": "#foo"}), "#foo"),
    ({"$id": "https://x.test", "$ref": "http://[x#y"}, "not an address"),
    ({"allOf": [{}], "$ref": f"#/allOf/{'9' * 5000}"}, "nowhere in it"),
    ({"$defs": {"a": {"$id": "x:y"}, "b": {"$id": "x:y", "type": "null"}}}, "two schemas"),
]

# The CLI takes it, but what refers to it could not be found here.
REFUSED_HERE: list[tuple[dict[str, Any], str]] = [({"$id": "http://[x#y"}, "not an address")]

# Left to the CLI: it refuses them, and its own message is reported.
LEFT_TO_THE_CLI: list[dict[str, Any]] = [
    of_a({"pattern": "("}),
    of_a({"pattern": "(?P<x>a)"}),
    {"patternProperties": {"[a": TEXT}},
    {"then": {}},
    {"additionalItems": False},
    of_a({"nullable": True}),
    {"minimum": 10**400, "maxItems": 10**400},
]


@pytest.mark.parametrize("schema", TAKEN + LEFT_TO_THE_CLI, ids=json.dumps)
def test_a_schema_that_claude_code_takes_or_checks_itself_passes(schema: dict[str, Any]) -> None:
    check_schema(schema)


@pytest.mark.parametrize(("schema", "fault"), REFUSED + REFUSED_HERE)
def test_a_schema_that_claude_code_does_not_take_is_refused_with_the_place(
    schema: dict[str, Any], fault: str
) -> None:
    request = DispatchRequest(agent="infra", task="go", json_schema=json.dumps(schema))
    with pytest.raises(InvalidRequestError, match=fault) as refused:
        check_request(request)
    assert str(refused.value).startswith("json_schema ")


@pytest.mark.parametrize(
    "dialect",
    [
        "https://json-schema.org/draft/2020-12/schema",
        "https://json-schema.org/draft/2020-12/schema#",
        "http://json-schema.org/draft/2019-09/schema",
        "https://json-schema.org/draft-07/schema",
        "http://json-schema.org/draft-07/schema#",
        "http://json-schema.org/draft-06/schema#",
    ],
)
def test_a_compatible_dialect_is_passed_on_without_its_name(dialect: str) -> None:
    schema = {"$schema": dialect, **of_a({"const": 1.50})}
    check_schema(schema)
    assert json.loads(without_dialect(json.dumps(schema))) == of_a({"const": 1.5})


def test_a_schema_without_a_dialect_is_not_changed() -> None:
    assert without_dialect('{ "type":  "object" }') == '{ "type":  "object" }'


@pytest.mark.parametrize(
    "dialect", ["http://json-schema.org/draft-04/schema#", "https://x.test/own", "2020-12", "", 5]
)
def test_another_dialect_is_refused_by_name(dialect: object) -> None:
    with pytest.raises(InvalidRequestError, match=r"\$schema"):
        check_schema({"$schema": dialect, "type": "object"})


def test_deep_and_circular_schemas_end() -> None:
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(5000):
        deep = {"not": deep}
    check_schema(deep)
    check_schema({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#"}}})


KEYS = ["type", "properties", "items", "$ref", "$id", "$defs", "enum", "pattern", "dependencies"]
KEYS += ["minimum", "maxItems", "multipleOf"]
ADDRESSES = st.sampled_from(["http://[x#y", "http://a]/b", "#", "#/items/0", "urn:x"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.text() | ADDRESSES,
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(KEYS) | st.text(), inner),
    max_leaves=30,
)


@given(schema=st.dictionaries(st.sampled_from(KEYS), JSON))
def test_any_object_is_taken_or_refused(schema: dict[str, Any]) -> None:
    # Anything but a refusal would be raised.
    with contextlib.suppress(InvalidRequestError):
        check_schema(schema)
