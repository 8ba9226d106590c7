import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_dispatch.core.stream.json_text import MAX_DEPTH, deeper_than, elements, repair, value_end

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet='"\\[]{}aé\U0001f600'),
    lambda children: st.lists(children) | st.dictionaries(st.text(alphabet='"\\[]{}'), children),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("text", "end"),
    [
        (b"{}", 2),
        (b"[[]] rest", 4),
        (b'{"a":"}"}]', 9),
        (rb'{"a":"\"}"}', 11),
        (rb'{"a":"\\"}"', 10),
        (b"{", None),
        (b'{"a":"}', None),
        (b'{"a":"\\', None),
        (b"[" * 10_000 + b"]" * 10_000, 20_000),
    ],
)
def test_a_value_ends_with_its_bracket(text: bytes, end: int | None) -> None:
    assert value_end(text, 0) == end


@given(st.lists(JSON) | st.dictionaries(st.text(), JSON), st.text(alphabet='"[]{} \\x'))
def test_a_value_ends_where_the_parser_says(value: Any, after: str) -> None:
    text = json.dumps(value)
    assert value_end((text + after).encode(), 0) == len(text)


def test_elements_are_the_objects_of_an_array() -> None:
    text = b'[1,{"a":[{}]},"{",[{}],{"b":2}] {"c":3}'
    assert [text[begin:end] for begin, end in elements(text)] == [b'{"a":[{}]}', b'{"b":2}']


def test_depth_is_counted_outside_strings() -> None:
    assert deeper_than(b'[[["[[["]]]', 2)
    assert not deeper_than(b'[[["[[["]]]', 3)


@given(JSON)
def test_valid_json_is_not_changed(value: Any) -> None:
    text = bytearray(json.dumps(value).encode())
    before = bytes(text)
    repaired = repair(text)
    assert json.loads(text) == value
    assert repaired or bytes(text) == before


@pytest.mark.parametrize(
    ("text", "repaired"),
    [
        (b'["\xff"]', '["\ufffd"]'.encode()),
        (b'["' + b"x" * (1 << 20) + b'\xc3"]', b'["' + b"x" * (1 << 20) + '\ufffd"]'.encode()),
        (rb'["\ud83d\ude00 \ud83d \\ud83d"]', rb'["\ud83d\ude00 \ufffd \\ud83d"]'),
        (rb'["\ude00\ud83d"]', rb'["\ufffd\ufffd"]'),
        (b'[NaN,-Infinity,"NaN"]', b'[null,null,"NaN"]'),
    ],
)
def test_json_that_a_parser_refuses_is_replaced(text: bytes, repaired: bytes) -> None:
    data = bytearray(text)
    assert repair(data)
    assert bytes(data) == repaired


def test_a_character_across_two_pieces_is_whole() -> None:
    text = b'["' + b"x" * ((1 << 20) - 3) + "é".encode() + b'"]'
    data = bytearray(text)
    assert not repair(data)
    assert bytes(data) == text


def test_values_below_the_greatest_depth_become_null() -> None:
    deep = MAX_DEPTH + 5
    data = bytearray(b'{"a":' + b"[" * deep + b"1" + b"]" * deep + b',"b":2}')
    assert repair(data)
    value = json.loads(data)
    assert value["b"] == 2
    inner = value["a"]
    for _ in range(MAX_DEPTH - 2):
        (inner,) = inner
    assert inner == [None]
