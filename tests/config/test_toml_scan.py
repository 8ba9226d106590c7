import tomllib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_dispatch.config.edit.toml_scan import Assignment, Header, scan, scan_inline_table
from tests.config.toml_texts import KEYS, TRICKY_VALUES, assignments


def _value_at(data: Any, path: tuple[str, ...]) -> Any:
    for part in path:
        data = data[part]
    return data


@pytest.mark.parametrize("value", TRICKY_VALUES)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_value_is_found_from_its_first_to_its_last_character(value: str, newline: str) -> None:
    value = value.replace("\n", newline)
    text = f"before = 1{newline}key = {value} # after{newline}last = 2{newline}"
    found = [s for s in scan(text) if isinstance(s, Assignment)]
    assert [s.path for s in found] == [("before",), ("key",), ("last",)]
    assert text[found[1].value_start : found[1].value_end] == value


@pytest.mark.parametrize("key", KEYS)
def test_a_key_is_read_as_tomllib_reads_it(key: str) -> None:
    (statement,) = scan(f"{key} = 1")
    assert _value_at(tomllib.loads(f"{key} = 1"), statement.path) == 1


def test_headers_are_distinguished_from_arrays_that_begin_a_line() -> None:
    text = '[a . "b]"]\nx = [\n[1],\n["[c]"],\n]\n[[d]] # [e]\n'
    assert scan(text) == [
        Header(("a", "b]"), 0, 11, False),
        Assignment(("a", "b]", "x"), 2, 11, 15, 32, 33),
        Header(("d",), 33, 45, True),
    ]


def test_the_members_of_an_inline_table_are_found_at_its_first_level() -> None:
    text = "{ a = 1, b.c = { d = 2 }, 'e' = [{ f = 3 }] }"
    members = scan_inline_table(text, 0)
    assert [m.path for m in members] == [("a",), ("b", "c"), ("e",)]
    assert [text[m.value_start : m.value_end] for m in members] == ["1", "{ d = 2 }", "[{ f = 3 }]"]


@settings(deadline=None)
@given(body=assignments(), ends=st.sampled_from(["\n", "", "# end", " \t"]))
def test_every_assignment_holds_the_value_that_tomllib_finds(body: str, ends: str) -> None:
    text = f"# top\n{body}{ends}"
    data = tomllib.loads(text)
    for statement in scan(text):
        assert isinstance(statement, Assignment)
        alone = tomllib.loads(f"v = {text[statement.value_start : statement.value_end]}")["v"]
        assert repr(alone) == repr(_value_at(data, statement.path))
