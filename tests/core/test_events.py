import itertools
import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_dispatch.core.stream.events import (
    AssistantEvent,
    BackgroundTask,
    ContentBlock,
    ControlRequest,
    ControlRequestEvent,
    CutLine,
    Event,
    McpServer,
    ModelUsage,
    NoiseLine,
    OtherEvent,
    PermissionDenial,
    RateLimitEvent,
    ResultEvent,
    SystemEvent,
    TaskPatch,
    ToolInput,
    UserEvent,
)
from agent_dispatch.core.stream.reader import EventDecoder
from tests.core import builders

PRETTY = json.dumps([builders.init(), builders.result("spread out")], indent=2).encode()


def decode(data: bytes, **limits: int) -> list[Event]:
    decoder = EventDecoder(**limits)
    return decoder.feed(data) + decoder.finish()


def decode_one(event: dict[str, Any]) -> Event:
    (decoded,) = decode(json.dumps(event).encode())
    return decoded


def only_result(data: bytes) -> ResultEvent:
    (found,) = [event for event in decode(data) if isinstance(event, ResultEvent)]
    return found


def test_an_init_gives_version_model_session_and_servers() -> None:
    servers = [{"name": "pg", "status": "failed", "source": "project"}]
    event = decode_one(builders.init(mcp_servers=servers))
    assert event == SystemEvent(
        subtype="init",
        session_id=builders.SESSION,
        model="claude-opus-5-5",
        claude_code_version="2.1.330",
        mcp_servers=(McpServer(name="pg", status="failed"),),
        permission_mode="default",
    )


def test_an_assistant_event_gives_its_blocks() -> None:
    event = decode_one(builders.tool_use("Bash", parent_tool_use_id="toolu_1"))
    assert isinstance(event, AssistantEvent)
    assert event.parent_tool_use_id == "toolu_1"
    given = ToolInput(command="touch x")
    block = ContentBlock(type="tool_use", id="toolu_2", name="Bash", input=given)
    assert event.message.content == (block,)


def test_a_result_gives_all_that_an_outcome_needs() -> None:
    event = decode_one(
        builders.result("done", permission_denials=[builders.denial("Bash")], num_turns=2)
    )
    assert event == ResultEvent(
        subtype="success",
        is_error=False,
        result="done",
        session_id=builders.SESSION,
        num_turns=2,
        total_cost_usd=0.5,
        model_usage_since_last_result={"claude-opus-5-5": ModelUsage(cost_usd=0.125)},
        permission_denials=(
            PermissionDenial(
                tool_name="Bash", tool_use_id="toolu_2", tool_input='{"command": "touch x"}'
            ),
        ),
        terminal_reason="completed",
    )


def test_background_tasks_say_whether_to_wait_for_them() -> None:
    event = decode_one(builders.tasks_now("b1", ambient=True))
    assert isinstance(event, SystemEvent)
    assert event.tasks == (BackgroundTask(task_id="b1", ambient=True),)
    patch = decode_one(builders.task("task_updated", patch={"status": "completed"}))
    assert isinstance(patch, SystemEvent)
    assert patch.patch == TaskPatch(status="completed")


def test_limits_and_control_messages_are_decoded() -> None:
    limit = {"status": "rejected", "resetsAt": 1795351976, "rateLimitType": "five_hour"}
    rate = decode_one({"type": "rate_limit_event", "rate_limit_info": limit})
    assert isinstance(rate, RateLimitEvent)
    assert rate.rate_limit_info.resets_at == 1795351976
    asked = decode_one(
        {"type": "control_request", "request_id": "r", "request": {"subtype": "elicitation"}}
    )
    assert asked == ControlRequestEvent(
        request_id="r", request=ControlRequest(subtype="elicitation")
    )


def test_an_unknown_type_is_kept_by_its_name() -> None:
    assert decode_one({"type": "stream_event", "event": {}}) == OtherEvent("stream_event")


@pytest.mark.parametrize(
    ("wrong", "read"),
    [
        ({"num_turns": "2"}, {"num_turns": 2}),
        ({"num_turns": None}, {"num_turns": None}),
        ({"num_turns": [1]}, {"num_turns": None}),
        ({"is_error": "false"}, {"is_error": False}),
        ({"api_error_status": "429"}, {"api_error_status": 429}),
        ({"total_cost_usd": {}}, {"total_cost_usd": None}),
        ({"total_cost_usd": "NaN"}, {"total_cost_usd": None}),
        ({"total_cost_usd": "-Infinity"}, {"total_cost_usd": None}),
        ({"errors": ["a", 5, None, {"b": 1}]}, {"errors": ("a", "5", "", '{"b": 1}')}),
        ({"errors": "no list"}, {"errors": ()}),
        ({"permission_denials": "Bash"}, {"permission_denials": ()}),
        (
            {"permission_denials": [None, {"tool_name": 5, "tool_use_id": "t"}, [], 3]},
            {"permission_denials": (PermissionDenial(tool_name="5", tool_use_id="t"),)},
        ),
        (
            {"model_usage_since_last_result": {"m": {"costUSD": "free"}}},
            {"model_usage_since_last_result": {"m": ModelUsage()}},
        ),
        ({"model_usage_since_last_result": [1]}, {"model_usage_since_last_result": None}),
        ({"subtype": None}, {"subtype": ""}),
        ({"session_id": 5}, {"session_id": None}),
        ({"terminal_reason": ["x"]}, {"terminal_reason": None}),
    ],
)
def test_a_field_of_another_type_costs_that_field_only(
    wrong: dict[str, Any], read: dict[str, Any]
) -> None:
    event = decode_one(builders.result("kept") | wrong)
    assert isinstance(event, ResultEvent)
    assert event.result == "kept"
    assert {name: getattr(event, name) for name in read} == read


@pytest.mark.parametrize(
    ("answer", "kept"),
    [(0, "0"), (False, "false"), (None, ""), ({"a": 1}, '{"a": 1}'), ([], "[]"), (1.5, "1.5")],
)
def test_an_answer_that_is_not_text_is_kept_as_json(answer: object, kept: str) -> None:
    event = decode_one(builders.result() | {"result": answer})
    assert isinstance(event, ResultEvent)
    assert event.result == kept


def test_structured_null_differs_from_no_structured_output() -> None:
    absent = decode_one(builders.result())
    null = decode_one(builders.result(structured_output=None))
    assert isinstance(absent, ResultEvent)
    assert isinstance(null, ResultEvent)
    assert absent.structured_output is msgspec.UNSET
    assert null.structured_output is None


def test_one_odd_block_costs_that_block_only() -> None:
    content = [{"type": "text", "text": "kept", "name": None}, None, {"type": "text", "text": 7}]
    event = decode_one(builders.text("") | {"message": {"content": content}})
    assert isinstance(event, AssistantEvent)
    assert [block.text for block in event.message.content] == ["kept", "7"]


def test_nothing_in_a_null_event_is_needed() -> None:
    nulls = dict.fromkeys(("subtype", "message", "tasks", "patch", "mcp_servers", "status"))
    assert decode_one({"type": "system"} | nulls) == SystemEvent()


@pytest.mark.parametrize(
    ("raw", "kept"),
    [
        (rb'"bad \xff byte"'.replace(rb"\xff", b"\xff"), "bad \ufffd byte"),
        (rb'"lone \ud800 half"', "lone \ufffd half"),
        (rb'"lone \udc00"', "lone \ufffd"),
        (rb'"two \ud83d\ude00 halves"', "two \U0001f600 halves"),
        (rb'"escaped \\ud800"', r"escaped \ud800"),
        (rb'"cut at the end \ud83d"', "cut at the end \ufffd"),
    ],
)
def test_undecodable_text_becomes_a_replacement_character(raw: bytes, kept: str) -> None:
    line = b'{"type":"result","is_error":false,"num_turns":1,"result":' + raw + b"}\n"
    assert only_result(line).result == kept


@pytest.mark.parametrize(
    "other",
    [
        b'"x":NaN',
        b'"x":-Infinity',
        b'"total_cost_usd":NaN',
        b'"total_cost_usd":1e999',
        b'"num_turns":' + b"9" * 5000,
        b'"x":' + b"[" * 2000 + b"]" * 2000,
        b'"x":' + b'{"a":' * 2000 + b"1" + b"}" * 2000,
        b'"structured_output":' + b"[" * 2000 + b"]" * 2000,
        b'"permission_denials":' + b"[" * 2000 + b"]" * 2000,
        b'"x":NaN,"y":"\xff","z":"\\ud800","w":' + b"[" * 2000 + b"]" * 2000,
    ],
)
def test_an_answer_survives_json_that_a_parser_refuses(other: bytes) -> None:
    line = b'{"type":"result",' + other + b',"is_error":false,"result":"NaN [kept] \\u00e9"}\n'
    assert only_result(line).result == "NaN [kept] \u00e9"


def test_line_ends_byte_order_marks_and_blank_lines_do_not_matter() -> None:
    line = builders.lines(builders.result("ok"))
    expected = decode(line)
    assert decode(b"\xef\xbb\xbf" + line) == expected
    assert decode(b"\r\n \t\n" + line.replace(b"\n", b"\r\n") + b"\n\n") == expected
    assert decode(line.rstrip()) == expected
    assert decode(b"  " + line) == expected


@pytest.mark.parametrize(
    "printed",
    [
        b"(node:1) Warning: something\n%s\n",
        b"warning: %s\n",
        b"[warn] {config} %s\n",
        b"%s trailing\n",
        b"%s\ntrailing",
        b'{"note": 1}\n%s\n',
        b'{"note": 1} %s\n',
        b"{broken %s\n",
        b"[%s]\n",
        b'[{"type":"system","subtype":"init"},{},{"x":{"type":"result"}},1,%s]\n',
        b"[\n%s,\n%s\n]\n",
        b"%s%s\n",
    ],
)
def test_a_result_is_found_amid_noise(printed: bytes) -> None:
    line = builders.lines(builders.result("the answer")).strip()
    results = [
        event for event in decode(printed.replace(b"%s", line)) if isinstance(event, ResultEvent)
    ]
    assert {event.result for event in results} == {"the answer"}
    assert len(results) == printed.count(b"%s")


@pytest.mark.parametrize("indent", [None, 2, "\t"])
@pytest.mark.parametrize("before", ["", "(node) Warning\n", "[warn] odd\n", "\ufeff"])
@pytest.mark.parametrize("after", ["", "\n", "\nbye\n"])
def test_other_layouts_give_the_same_events(
    indent: int | str | None, before: str, after: str
) -> None:
    events = [builders.init(), builders.text("hm"), builders.result("spread out")]
    expected = decode(builders.lines(*events))
    printed = before + json.dumps(events, indent=indent) + after
    found = [event for event in decode(printed.encode()) if not isinstance(event, NoiseLine)]
    assert found == expected


def test_a_result_alone_may_spread_over_lines() -> None:
    printed = json.dumps(builders.result('{"quoted": [1]}'), indent=4).encode()
    assert only_result(printed).result == '{"quoted": [1]}'


def test_lines_are_not_read_twice_after_a_normal_result() -> None:
    odd = json.dumps(builders.result("not the answer"), indent=4).encode()
    assert only_result(odd + b"\n" + builders.lines(builders.result("ok"))).result == "ok"


@pytest.mark.parametrize(
    "line",
    [
        b"plain text",
        b"12",
        b'"text"',
        b"null",
        b"[]",
        b"{}",
        b'{"a":1}',
        b'{"type":5}',
        b'{"type":"result"',
        b'{"type":"result","result":"x"]',
        b"{{{{",
        b"\xff\xfe",
        b'[1,"{",2]',
    ],
)
def test_a_line_that_is_not_an_event_is_noise(line: bytes) -> None:
    events = decode(line + b"\n")
    assert [type(event) for event in events] == [NoiseLine]


def test_noise_is_kept_in_part() -> None:
    (event,) = decode(b"x" * 100_000)
    assert isinstance(event, NoiseLine)
    assert event.text == "x" * 2000


def test_a_line_that_is_too_long_is_cut_and_the_next_one_intact() -> None:
    events = decode(
        b"y" * 2000 + b"\n" + builders.lines(builders.result("ok")), max_line_bytes=1000
    )
    assert events[0] == CutLine(b"y" * 500)
    assert isinstance(events[1], ResultEvent)
    assert len(events) == 2


def test_a_line_of_the_largest_size_is_whole() -> None:
    assert decode(b"y" * 1000 + b"\n", max_line_bytes=1000) == [NoiseLine("y" * 1000)]
    assert decode(b"y" * 1001, max_line_bytes=1000) == [CutLine(b"y" * 500)]


def test_large_lines_are_read_like_small_ones() -> None:
    denials = [builders.denial("Write") | {"tool_input": {"content": "x" * 2_000_000}}]
    event = decode_one(builders.result("y" * 2_000_000, permission_denials=denials))
    assert isinstance(event, ResultEvent)
    assert len(event.result) == 2_000_000
    assert [each.tool_name for each in event.permission_denials] == ["Write"]


def test_the_reader_may_reuse_a_chunk() -> None:
    chunk = bytearray(builders.lines(builders.result("ok", structured_output={"a": [1]})))
    decoder = EventDecoder()
    (event,) = decoder.feed(memoryview(chunk))
    chunk[:] = b"overwritten"
    assert isinstance(event, ResultEvent)
    assert (event.result, event.structured_output) == ("ok", {"a": [1]})


STREAMS = [
    builders.lines(
        builders.init(),
        builders.text("h\u00e9llo \U0001f600"),
        builders.tool_result(),
        {"type": "new"},
    ),
    b"\xef\xbb\xbf" + builders.lines(builders.result("ok"))[:-1],
    b'warning: {"type":"result","result":"\\ud83d"}\r\n\r\n{"type":"result"',
    PRETTY,
    b"\xff\n" + b"z" * 70 + b'\n{"type":"result","result":NaN}\n',
    b'[{"type":"user"},{"type":"assistant"}]\n{"type":"result"} {"type":"result"}\n',
]


@given(st.sampled_from(STREAMS), st.lists(st.integers(0, 4000)))
def test_any_split_of_the_bytes_gives_the_same_events(data: bytes, cuts: list[int]) -> None:
    decoder = EventDecoder()
    events: list[Event] = []
    for piece in pieces(data, cuts):
        events += decoder.feed(piece)
    assert events + decoder.finish() == decode(data)


@given(st.sampled_from(STREAMS), st.lists(st.integers(0, 4000)))
def test_any_split_cuts_the_same_lines(data: bytes, cuts: list[int]) -> None:
    decoder = EventDecoder(max_line_bytes=50)
    events: list[Event] = []
    for piece in pieces(data, cuts):
        events += decoder.feed(bytearray(piece))
    assert events + decoder.finish() == decode(data, max_line_bytes=50)


def pieces(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    for begin, end in itertools.pairwise(edges):
        yield data[begin:end]


@given(
    st.binary()
    | st.lists(
        st.sampled_from(
            [
                b'{"',
                b"type",
                b'":',
                b'"',
                b"result",
                b"[",
                b"}",
                b"\\",
                b"ud8",
                b"00",
                b"\xff",
                b",",
                b"\n",
                b"NaN",
                b" ",
            ]
        )
    ).map(b"".join)
)
def test_arbitrary_bytes_never_raise(data: bytes) -> None:
    decode(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3)
    ),
    max_leaves=8,
)
NAMES = st.sampled_from(
    [
        field.encode_name
        for kind in (SystemEvent, AssistantEvent, UserEvent, ResultEvent)
        for field in msgspec.structs.fields(kind)
    ]
)


@given(
    st.sampled_from(["system", "assistant", "user", "result", "control_request"]),
    st.dictionaries(NAMES, JSON),
)
def test_arbitrary_fields_never_lose_an_event(kind: str, fields: dict[str, Any]) -> None:
    event = decode_one(fields | {"type": kind})
    assert not isinstance(event, NoiseLine | OtherEvent)


@given(
    st.sampled_from(["system", "assistant", "user", "result"]),
    st.dictionaries(NAMES, JSON),
)
def test_a_large_event_is_read_like_a_small_one(kind: str, fields: dict[str, Any]) -> None:
    small = json.dumps(fields | {"type": kind}).encode()
    large = small[:-1] + b', "filling": "' + b"x" * 1_100_000 + b'"}'
    assert decode(large) == decode(small)


@pytest.mark.parametrize(
    "event",
    [
        builders.init(),
        builders.text("hm"),
        builders.tool_use("Bash"),
        builders.tool_result(),
        builders.denied("Bash"),
        builders.retry(529),
        builders.tasks_now("b1"),
        builders.result("ok", permission_denials=[builders.denial("Bash")]),
        builders.failed("error_max_turns", "max_turns", "Reached maximum number of turns (1)"),
    ],
)
def test_a_large_event_of_the_real_cli_is_read_like_a_small_one(event: dict[str, Any]) -> None:
    assert decode_one(event | {"filling": "x" * 1_100_000}) == decode_one(event)
