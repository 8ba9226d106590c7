from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent_dispatch.core.outcome.json_answer import parse_answer


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1}', {"a": 1}),
        (' \r\n[1, "x"]\n', [1, "x"]),
        ("42", 42),
        ('"text"', "text"),
        ("null", None),
        ("true", True),
        ('\ufeff{"a": 1}', {"a": 1}),
        ('```json\n{"a": 1}\n```', {"a": 1}),
        ('```JSON\r\n{"a": 1}\r\n```\r\n', {"a": 1}),
        ("```\nnull\n```", None),
        ('~~~json\n{"a": 1}\n~~~', {"a": 1}),
        ('````json\n{"a": "```"}\n````', {"a": "```"}),
        ('Here it is:\n\n```json\n{"a": 1}\n```\n\nAnything else?', {"a": 1}),
        ('1. One\n   ```json\n   {"a": 1}\n   ```', {"a": 1}),
        ('> ```json\n> 5\n> ```\n```json\n{"a": 1}\n```', {"a": 1}),
        ('```json {"a": 1} ```', {"a": 1}),
        ('```json\n{"a": 1}\n', {"a": 1}),
        ('```bash\ntrue\n```\n\n```json\n{"a": 1}\n```', {"a": 1}),
        ('The result is {"a": [1, {"b": 2}]}.', {"a": [1, {"b": 2}]}),
        ('{"a": 1}\nDone.', {"a": 1}),
        ('A list [of words], then {"a": "}"}', {"a": "}"}),
        ('{"a": 123456789012345678901234567890}', {"a": 123456789012345678901234567890}),
    ],
)
def test_one_json_value_is_read(text: str, value: Any) -> None:
    assert parse_answer(text) == value
    assert parse_answer(text) is not msgspec.UNSET


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no value here",
        "the answer is 42",
        "NaN",
        '{"a": NaN}',
        '{"a": -Infinity}',
        "1e999",
        "[" * 2000 + "]" * 2000,
        "[" * 200 + "]" * 200,
        '{"a":' * 2000 + "1" + "}" * 2000,
        "1" * 5000,
        '```json\n{"a": 1}\n```\n```json\n{"a": 2}\n```',
        'first {"a": 1}, then {"a": 2}',
        '{"a": 1} [1]',
        '[{"a": 1}, {"b": 2',
        'function f() { return {"a": 1}; }',
        '{a: {"b": 1}}',
        '{"a": "\\ud800"}',
        "\ud800",
    ],
)
def test_an_uncertain_value_stays_text(text: str) -> None:
    assert parse_answer(text) is msgspec.UNSET


def test_a_decoded_answer_can_be_encoded_again() -> None:
    value = parse_answer("[" * 100 + "]" * 100)
    assert value is not msgspec.UNSET
    assert msgspec.json.decode(msgspec.json.encode(value)) == value


@given(st.text() | st.text(alphabet='`~\n{}[]"a1:,\\ ', max_size=60))
@example("```\n```")
@example("[" * 100_000)
@example('{"' * 10_000)
@example("[]" * 100_000)
def test_no_answer_raises(text: str) -> None:
    parse_answer(text)


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.none(), min_size=1))
def test_an_object_is_found_wherever_it_stands(value: dict[str, Any]) -> None:
    text = msgspec.json.encode(value).decode()
    for answer in (text, f"```json\n{text}\n```", f"It is:\n\n{text}\n\nDone."):
        assert parse_answer(answer) == value
