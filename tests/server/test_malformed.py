import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp_types import INVALID_PARAMS, INVALID_REQUEST, PARSE_ERROR

from agent_dispatch.server.stdio.malformed import (
    Ignored,
    Refusal,
    Salvaged,
    is_request_without_proper_id,
    refuse_overlong,
    second_look,
)


def refused(line: bytes) -> tuple[int, tuple[int | str | None, ...]]:
    verdict = second_look(line)
    assert isinstance(verdict, Refusal)
    return verdict.code, verdict.ids


@pytest.mark.parametrize(
    ("line", "code", "ids"),
    [
        (b"hello", PARSE_ERROR, (None,)),
        (b"{", PARSE_ERROR, (None,)),
        (b"\xff\xfe\x00", PARSE_ERROR, (None,)),
        (b'"text"', INVALID_REQUEST, (None,)),
        (b"null", INVALID_REQUEST, (None,)),
        (b"[]", INVALID_REQUEST, (None,)),
        (b"[" * 100_000, PARSE_ERROR, (None,)),
        (b'{"jsonrpc":"2.0","id":7,"method":"x","params":{"a":"\xff"}}', PARSE_ERROR, (7,)),
        (b'{"jsonrpc":"2.0","id":"a","method":"x","params":{"a":', PARSE_ERROR, ("a",)),
        (b'{"method":"x","params":{"a":nul},"jsonrpc":"2.0","id":8}', PARSE_ERROR, (8,)),
        (b'\xef\xbb\xbf{"jsonrpc":"2.0","id":9,"method":"x"}', PARSE_ERROR, (9,)),
        (b'{"jsonrpc":"2.0","id":1,"method":"x","params":[1]}', INVALID_PARAMS, (1,)),
        (b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":"\\ud800"}}', INVALID_REQUEST, (1,)),
        (b'{"jsonrpc":"2.0","id":"\\ud800","method":"x"}', INVALID_REQUEST, (None,)),
        (b'{"jsonrpc":"2.0","id":1.5,"method":"x"}', INVALID_REQUEST, (None,)),
        (b'{"jsonrpc":"2.0","id":true,"method":"x"}', INVALID_REQUEST, (None,)),
        (b'{"jsonrpc":"2.0","id":2,"method":5}', INVALID_REQUEST, (2,)),
        (b'{"jsonrpc":"1.0","id":3,"method":"x"}', INVALID_REQUEST, (3,)),
        (b'{"id":4,"method":"x"}', INVALID_REQUEST, (4,)),
        (b"{}", INVALID_REQUEST, (None,)),
    ],
)
def test_a_broken_line_is_refused_under_its_id(
    line: bytes, code: int, ids: tuple[int | str | None, ...]
) -> None:
    assert refused(line) == (code, ids)


def test_each_request_of_a_batch_is_refused() -> None:
    batch = [{"jsonrpc": "2.0", "id": i, "method": "ping"} for i in (1, "two")]
    assert refused(json.dumps([*batch, {"method": "x"}, 5]).encode()) == (
        INVALID_REQUEST,
        (1, "two"),
    )


def test_deep_nesting_is_refused_under_its_id() -> None:
    deep = b'{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"arguments":%s}}'
    for depth in (250, 700, 100_000):
        nested = deep % (b'{"a":' * depth + b"1" + b"}" * depth)
        assert refused(nested)[1] == (5,), depth


def test_a_number_of_too_many_digits_is_refused_under_its_id() -> None:
    line = b'{"jsonrpc":"2.0","id":6,"method":"x","params":{"a":%s}}' % (b"9" * 5000)
    assert refused(line) == (PARSE_ERROR, (6,))


def test_a_broken_response_is_not_answered() -> None:
    for line in (
        b'{"jsonrpc":"2.0","id":1,"result":5}',
        b'{"jsonrpc":"2.0","id":1,"error":"no"}',
    ):
        assert isinstance(second_look(line), Ignored)


def test_a_tool_call_with_unpaired_surrogates_in_its_arguments_goes_on() -> None:
    line = (
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call",'
        b'"params":{"name":"dispatch","arguments":{"task":"sur\\ud800"}}}'
    )
    verdict = second_look(line)
    assert isinstance(verdict, Salvaged)
    assert verdict.message["params"]["arguments"] == {"task": "sur\ud800"}


def test_a_tool_call_with_unpaired_surrogates_elsewhere_is_refused() -> None:
    line = (
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call",'
        b'"params":{"name":"dispatch","_meta":{"progressToken":"\\ud800"}}}'
    )
    assert refused(line) == (INVALID_REQUEST, (1,))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'{"jsonrpc":"2.0","method":"notifications/initialized"}', False),
        (b'{"jsonrpc":"2.0","method":"notifications/x","id":null}', False),
        (b'{"jsonrpc":"2.0","method":"notifications/x","params":{"id":1}}', False),
        (b'{"jsonrpc":"2.0","method":"ping","id":null}', True),
        (b'{"jsonrpc":"2.0","method":"ping","id":1.0}', True),
    ],
)
def test_a_request_with_an_invalid_id_is_not_taken_for_a_notification(
    line: bytes, expected: bool
) -> None:
    assert is_request_without_proper_id(line) is expected


@pytest.mark.parametrize(
    ("head", "tail", "request_id"),
    [
        (b'{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"a":"xxx', b'xxx"}}', 3),
        (b'{"id":"k","jsonrpc":"2.0","params":{"a":"xxx', b'xxx"}}', "k"),
        (b'{"method":"tools/call","params":{"a":"xxx', b'xxx"},"jsonrpc":"2.0","id":4}', 4),
        (b'{"method":"tools/call","params":{"id":9,"a":"xxx', b'xxx","id":5}}', None),
        (b'{"method":"x","params":{"a":"xxx', b'xxx\\"id\\":\\"5\\"}"}}', None),
        (b"xxx", b"xxx", None),
    ],
)
def test_the_id_of_a_line_that_is_too_long_is_found_at_its_ends(
    head: bytes, tail: bytes, request_id: int | str | None
) -> None:
    refusal = refuse_overlong(head, tail, size=100, limit=10)
    assert refusal.ids == (request_id,)
    assert "100 bytes" in refusal.message


@given(st.binary(max_size=200))
def test_any_line_gets_a_verdict(line: bytes) -> None:
    assert isinstance(second_look(line), Refusal | Salvaged | Ignored)
