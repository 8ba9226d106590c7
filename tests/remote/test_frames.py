import json
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_dispatch.remote import frames
from agent_dispatch.remote.frames import (
    AnyFrame,
    Attach,
    BadFrameError,
    End,
    Frame,
    Ping,
    Receiver,
    Told,
)

ID = "0190a0b0c0d07e0f8a1b2c3d4e5f6071"


def wire(*sent: Frame) -> bytes:
    return b"".join(line for n, frame in enumerate(sent) for line in frames.lines_of(frame, n))


def received(data: bytes, sizes: Iterator[int] | None = None) -> list[AnyFrame | BadFrameError]:
    receiver, got = Receiver(), list[AnyFrame | BadFrameError]()
    while data:
        size = next(sizes, len(data)) if sizes is not None else len(data)
        got += receiver.feed(data[:size])
        data = data[size:]
    return got


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)


@given(st.lists(texts, max_size=5), st.lists(st.integers(1, 50), max_size=40))
def test_frames_arrive_whole_however_the_bytes_are_cut(lines: list[str], sizes: list[int]) -> None:
    sent = [Told(n=n, value=line) for n, line in enumerate(lines)]
    assert received(wire(*sent), iter(sizes)) == sent


@pytest.mark.parametrize("text", ["x" * 3_000_000, '"\\' * 700_000, "\u2028é🎉" * 200_000])
def test_a_long_frame_travels_in_lines_below_the_limit_and_arrives_identical(text: str) -> None:
    frame = End(n=1, id=ID, job={"text": text})
    data = wire(frame)
    assert max(map(len, data.splitlines())) <= frames.MAX_LINE_BYTES
    assert len(data.splitlines()) > 1
    assert received(data) == [frame]


def test_other_frames_fit_between_the_parts_of_a_long_one() -> None:
    long = [*frames.lines_of(Told(n=1, value="x" * 600_000), 7)]
    other = [*frames.lines_of(Told(n=2, value="y" * 600_000), 8)]
    mixed = b"".join(
        a + frames.encode(Ping()) + b"\n" + b for a, b in zip(long, other, strict=True)
    )
    got = received(mixed)
    assert got.count(Ping()) == len(long)
    assert [frame.n for frame in got if isinstance(frame, Told)] == [1, 2]


def test_unknown_fields_are_ignored_and_unknown_kinds_are_named_with_their_number() -> None:
    assert received(b'{"t":"attach","n":3,"id":"a","colour":"red"}\n') == [Attach(n=3, id="a")]
    [error] = received(b'{"t":"teleport","n":9}\n')
    assert isinstance(error, BadFrameError)
    assert error.n == 9


@pytest.mark.parametrize("line", [b"", b"  ", b"nonsense", b"\xff\xfe", b"[1]", b'{"n":{}}'])
def test_a_bad_line_does_not_stop_the_frames_after_it(line: bytes) -> None:
    got = received(line + b"\n" + wire(Ping()))
    assert got[-1] == Ping()


def test_a_line_above_the_limit_is_reported_once_and_dropped() -> None:
    got = received(b"x" * (3 * frames.MAX_LINE_BYTES) + b"\n" + wire(Ping()), iter([65536] * 60))
    assert len(got) == 2
    assert isinstance(got[0], BadFrameError)
    assert got[1] == Ping()


def test_a_long_frame_without_an_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "MAX_MESSAGE_BYTES", 100)
    part = msgspec.json.encode({"t": "part", "m": 1, "text": "x" * 60}) + b"\n"
    got = received(part * 3)
    assert any(isinstance(frame, BadFrameError) for frame in got)


def test_too_many_long_frames_at_once_are_refused() -> None:
    data = b"".join(
        msgspec.json.encode({"t": "part", "m": m, "text": "x"}) + b"\n"
        for m in range(frames.MAX_OPEN_MESSAGES + 1)
    )
    assert [type(frame) for frame in received(data)] == [BadFrameError]


def test_a_frame_is_one_line_of_json() -> None:
    line = frames.encode(Told(n=1, value="a\nb\u2028"))
    assert b"\n" not in line
    assert json.loads(line) == {"t": "told", "n": 1, "value": "a\nb\u2028"}
