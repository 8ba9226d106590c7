import tracemalloc
from collections.abc import Callable, Iterable, Iterator

import pytest

from agent_dispatch.core.stream.events import AssistantEvent, CutLine, Event, NoiseLine, ResultEvent
from agent_dispatch.core.stream.reader import MAX_LINE_BYTES, EventDecoder

MIB = 1024 * 1024
SIZE_MIB = 16


def peak_mib(chunks: Iterable[bytes], take: Callable[[Event], None]) -> float:
    """Most memory that reading `chunks` needed at once, beyond what was there before."""
    tracemalloc.start()
    try:
        decoder = EventDecoder()
        for chunk in chunks:
            for event in decoder.feed(chunk):
                take(event)
        for event in decoder.finish():
            take(event)
        return tracemalloc.get_traced_memory()[1] / MIB
    finally:
        tracemalloc.stop()


def line(head: bytes, filling: bytes, tail: bytes) -> Iterator[bytes]:
    yield head
    chunk = filling * (65536 // len(filling))
    for _ in range(SIZE_MIB * MIB // len(chunk)):
        yield chunk
    yield tail + b"\n"


RESULT = b'{"type":"result","is_error":false,"num_turns":1,'
TEXT = b'{"type":"assistant","message":{"content":[{"type":"text","text":"'


@pytest.mark.parametrize(
    ("chunks", "kind"),
    [
        (line(RESULT + b'"result":"', b"x", b'"}'), ResultEvent),
        (line(RESULT + b'"result":"', b"x\\n", b'"}'), ResultEvent),
        (
            line(RESULT + b'"result":"', b"x", b'","y":' + b"[" * 2000 + b"]" * 2000 + b"}"),
            ResultEvent,
        ),
        (line(RESULT + b'"permission_denials":[', b"{},", b'{}],"result":""}'), ResultEvent),
        (line(RESULT + b'"errors":[', b'"",', b'""],"result":""}'), ResultEvent),
        (line(RESULT + b'"structured":[', b"1,", b'1],"result":""}'), ResultEvent),
        (line(TEXT, b"x", b'"}]}}'), AssistantEvent),
        (line(b"[", b"1,", b"1]"), NoiseLine),
        (line(b"", b"[{", b""), NoiseLine),
        (line(b"", b"text ", b""), NoiseLine),
    ],
)
def test_a_large_line_needs_at_most_three_times_its_size(
    chunks: Iterator[bytes], kind: type[Event]
) -> None:
    events: list[Event] = []
    assert peak_mib(chunks, events.append) < 3 * SIZE_MIB + 4
    assert [type(event) for event in events] == [kind]


def test_decoded_lines_are_not_kept() -> None:
    decoder = EventDecoder()
    tracemalloc.start()
    try:
        for chunk in line(RESULT + b'"result":"', b"x", b'"}'):
            decoder.feed(chunk)
        assert tracemalloc.get_traced_memory()[0] < MIB
    finally:
        tracemalloc.stop()


def test_a_gibibyte_without_a_line_feed_is_bounded() -> None:
    chunk = b"x" * MIB
    chunks = (chunk for _ in range(1024))
    events: list[Event] = []
    assert peak_mib(chunks, events.append) < 1.25 * MAX_LINE_BYTES / MIB
    assert events == [CutLine(b"x" * 500)]


def test_endless_lines_of_noise_are_bounded() -> None:
    chunk = (b'{"spread over": ' + b"x" * 1000 + b"\n") * 1000
    count = 0

    def take(event: Event) -> None:
        nonlocal count
        count += 1

    assert peak_mib((chunk for _ in range(40)), take) < 32
    assert count == 40_000
