"""Settings files of editors, changed in place: comments, order and other members stay."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_dispatch.config.edit.draft import Draft, SpliceError
from agent_dispatch.config.edit.jsonc import JSONC, parse_jsonc

ENTRY = {"command": "/bin/x", "args": ["serve"]}


def _set(text: str, table: tuple[str, ...] = ("servers", "ours"), **changes: Any) -> str:
    draft = Draft(text, JSONC)
    draft.set_keys(table, changes)
    return draft.text


def _added(text: str, values: dict[str, Any] = ENTRY) -> str:
    draft = Draft(text, JSONC)
    draft.add_table(("servers", "ours"), values)
    return draft.text


def _removed(text: str) -> str:
    draft = Draft(text, JSONC)
    draft.remove_table(("servers", "ours"))
    return draft.text


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("", {}),
        (" \n// nothing yet\n", {}),
        ('{"a": 1, // one\n "b": [1, 2,],\n}', {"a": 1, "b": [1, 2]}),
        (
            '/* top */ {"url": "http://x//y", "c": "/* no */"}',
            {"url": "http://x//y", "c": "/* no */"},
        ),
        ('{"a": "\\"//",}', {"a": '"//'}),
        ('{"a": ",}", "b": ", ]"}', {"a": ",}", "b": ", ]"}),
    ],
)
def test_comments_and_last_commas_are_read_over(text: str, data: dict[str, Any]) -> None:
    assert parse_jsonc(text) == data


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "3",
        '{"a": }',
        '{"a": NaN}',
        '{"a": 1} x',
        "{,}",
        "{'a': 1}",
        "/* open",
        '{"a" 1}',
    ],
)
def test_a_text_that_is_not_an_object_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_jsonc(text)


def test_nesting_without_end_is_refused() -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_jsonc('{"a":' * 100_000)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            "",
            (
                '{\n  "servers": {\n    "ours": {\n      "command": "/bin/x",\n      "args": [\n'
                '        "serve"\n      ]\n    }\n  }\n}\n'
            ),
        ),
        ('{"servers": {"a": {}}}', '{"servers": {"a": {}, "ours": {"n": 1}}}'),
        (
            '{\n\t"servers": {\n\t\t"a": {} // mine\n\t}, // all\n\t"z": 1\n}\n',
            (
                '{\n\t"servers": {\n\t\t"a": {}, // mine\n\t\t"ours": {\n\t\t\t"n": 1\n'
                '\t\t}\n\t}, // all\n\t"z": 1\n}\n'
            ),
        ),
        (
            '{\n  "servers": {\n    "a": {}, // with a comma\n    // end\n  },\n}\n',
            (
                '{\n  "servers": {\n    "a": {}, // with a comma\n    // end\n    "ours": {\n'
                '      "n": 1\n    },\n  },\n}\n'
            ),
        ),
        (
            '{\n  "servers": {\n    // none yet\n  }\n}\n',
            '{\n  "servers": {\n    // none yet\n    "ours": {\n      "n": 1\n    }\n  }\n}\n',
        ),
        (
            '{\r\n  "a": 1\r\n}\r\n',
            '{\n  "a": 1,\n  "servers": {\n    "ours": {\n      "n": 1\n    }\n  }\n}\n'.replace(
                "\n", "\r\n"
            ),
        ),
        (
            "// first\n{}\n",
            '// first\n{\n  "servers": {\n    "ours": {\n      "n": 1\n    }\n  }\n}\n',
        ),
        (
            "// only a comment\n",
            '// only a comment\n{\n  "servers": {\n    "ours": {\n      "n": 1\n    }\n  }\n}\n',
        ),
    ],
)
def test_a_member_is_added_behind_the_last_one(before: str, after: str) -> None:
    assert _added(before, ENTRY if before == "" else {"n": 1}) == after


def test_a_value_is_replaced_where_it_stands() -> None:
    before = (
        '{\n  // all\n  "servers": {\n    "ours": { "n": 1, /* why */ "m": [1] }, // here\n  }\n}'
    )
    assert _set(before, n=2) == before.replace('"n": 1', '"n": 2')
    assert _set(before, k="x") == before.replace('"m": [1] }', '"m": [1], "k": "x" }')


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('{"servers": {"ours": {}}}', '{"servers": {}}'),
        ('{"servers": {"a": 1, "ours": {}}}', '{"servers": {"a": 1}}'),
        ('{"servers": {"ours": {}, "a": 1}}', '{"servers": { "a": 1}}'),
        (
            '{\n  "servers": {\n    "a": {}, // mine\n    "ours": {\n      "n": 1\n    }\n  }\n}\n',
            '{\n  "servers": {\n    "a": {} // mine\n  }\n}\n',
        ),
        (
            '{\n  "servers": {\n    "a": {},\n    // about ours\n    "ours": {},\n  },\n}\n',
            '{\n  "servers": {\n    "a": {},\n    // about ours\n  },\n}\n',
        ),
        (
            '{\n  "servers": {\n    "ours": {}, // said\n    "a": {}\n  }\n}\n',
            '{\n  "servers": {\n    // said\n    "a": {}\n  }\n}\n',
        ),
    ],
)
def test_a_member_is_removed_and_its_neighbours_stay(before: str, after: str) -> None:
    assert _removed(before).replace("     // said", "    // said") == after


@pytest.mark.parametrize("text", ['{"servers": []}', '{"servers": null}', '{"servers": "x"}'])
def test_a_value_in_the_place_of_a_table_is_not_changed(text: str) -> None:
    with pytest.raises(SpliceError, match="servers is not an object"):
        _set(text, n=1)


def test_a_key_that_is_there_twice_cannot_be_removed() -> None:
    with pytest.raises(SpliceError, match="not say what was intended"):
        _removed('{"servers": {"ours": 1, "ours": 2}}')


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=12,
)
_DOCUMENTS = st.dictionaries(st.text(max_size=4), _VALUES, max_size=4)


def _decorated(data: object, draw: st.DataObject) -> str:
    """Write data with comments and last commas at random places."""
    comment = draw.draw(st.sampled_from(["", " /* c, } */", ' // it\'s "c"\n', "\n\t"]))
    if isinstance(data, dict) and data:
        parts = [f"{comment}{json.dumps(k)}:{_decorated(v, draw)}" for k, v in data.items()]
        return "{" + ",".join(parts) + draw.draw(st.sampled_from(["", ","])) + comment + "}"
    if isinstance(data, list) and data:
        return "[" + ",".join(_decorated(item, draw) for item in data) + comment + "]"
    return f"{comment}{json.dumps(data)}{comment}"


@given(_DOCUMENTS, _DOCUMENTS, st.data())
def test_an_added_entry_can_be_removed_and_the_rest_says_the_same(
    data: dict[str, Any], servers: dict[str, Any], draw: st.DataObject
) -> None:
    servers = {key: value for key, value in servers.items() if key != "ours"}
    document = {**data, "servers": servers}
    text = _decorated(document, draw)
    assert parse_jsonc(text) == document
    added = _added(text)
    assert parse_jsonc(added) == {**document, "servers": {**servers, "ours": ENTRY}}
    assert parse_jsonc(_removed(added)) == document


@given(
    _DOCUMENTS,
    st.dictionaries(st.just("n") | st.text(max_size=4), _VALUES, max_size=3),
    _VALUES,
    st.data(),
)
def test_a_key_is_set_or_removed_and_the_rest_says_the_same(
    data: dict[str, Any], ours: dict[str, Any], value: object, draw: st.DataObject
) -> None:
    document = {**data, "servers": {"ours": ours, "other": {"n": 1}}}
    text = _decorated(document, draw).replace("\n", draw.draw(st.sampled_from(["\n", "\r\n"])))
    changed = {**ours, "n": value}
    if value is None:
        del changed["n"]
    assert parse_jsonc(_set(text, n=value)) == {
        **document,
        "servers": {"ours": changed, "other": {"n": 1}},
    }
