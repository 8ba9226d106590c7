import json
import math
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_dispatch.remote import frames
from agent_dispatch.remote.frames import (
    Accepted,
    AnyFrame,
    Attach,
    BadFrameError,
    Due,
    End,
    Event,
    Failed,
    Following,
    Frame,
    Greeting,
    Hello,
    NoGreetingError,
    Ping,
    Receiver,
    Silence,
    Stage,
    Submit,
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
def test_what_is_no_frame_never_stops_the_frames_behind_it(line: bytes) -> None:
    got = received(line + b"\n" + wire(Ping()))
    assert got[-1] == Ping()


def test_a_line_above_the_limit_is_told_once_and_dropped() -> None:
    got = received(b"x" * (3 * frames.MAX_LINE_BYTES) + b"\n" + wire(Ping()), iter([65536] * 60))
    assert len(got) == 2
    assert isinstance(got[0], BadFrameError)
    assert got[1] == Ping()


def test_a_message_of_endless_parts_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "MAX_MESSAGE_BYTES", 100)
    part = msgspec.json.encode({"t": "part", "m": 1, "text": "x" * 60}) + b"\n"
    got = received(part * 3)
    assert any(isinstance(frame, BadFrameError) for frame in got)


def test_many_messages_at_once_are_refused() -> None:
    data = b"".join(
        msgspec.json.encode({"t": "part", "m": m, "text": "x"}) + b"\n"
        for m in range(frames.MAX_OPEN_MESSAGES + 1)
    )
    assert [type(frame) for frame in received(data)] == [BadFrameError]


@pytest.mark.parametrize("noise", [b"", b"Welcome!", b"Welcome!\n", b"ADR1 other {}\n", b"\xff\n"])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_the_greeting_is_found_behind_noise(noise: bytes, size: int) -> None:
    hello = Hello(version="1.2.3", host_id="h")
    data = noise + frames.greeting("abc", hello) + b"rest"
    search = Greeting("abc")
    found = None
    while found is None:
        found, data = search.feed(data[:size]), data[size:]
    assert found[0] == hello
    assert found[1] + data == b"rest"


def test_endless_noise_is_no_greeting() -> None:
    search = Greeting("abc")
    for _ in range(32):
        assert search.feed(b"y\n" * 1000) is None
    with pytest.raises(NoGreetingError):
        search.feed(b"y\n" * 1000)


def test_a_greeting_that_cannot_be_read_is_none() -> None:
    with pytest.raises(NoGreetingError):
        Greeting("abc").feed(b"\nADR1 abc {broken\n")


@pytest.mark.parametrize(
    ("proto", "oldest", "common"), [(1, 1, 1), (5, 1, 1), (5, 2, None), (0, 0, None)]
)
def test_versions_differ_as_long_as_they_share_a_protocol(
    proto: int, oldest: int, common: int | None
) -> None:
    assert frames.common_protocol(Hello(proto=proto, oldest=oldest)) == common


@pytest.mark.parametrize(("lease_s", "dead_s"), [(120, 20), (60, 20), (30, 10), (5, 5 / 3)])
def test_a_link_is_dead_after_a_third_of_the_lease_at_most(lease_s: float, dead_s: float) -> None:
    assert frames.dead_after_s(lease_s) == dead_s


def test_silence_asks_for_a_ping_and_then_for_the_end() -> None:
    silence = Silence(20, now=100)
    assert silence.next_at == 105
    assert silence.due(104.9) is None
    assert silence.due(105) is Due.PING
    silence.said(105)
    assert silence.next_at == 110
    silence.heard(108)
    assert silence.due(127.9) is Due.PING
    assert silence.due(128) is Due.DEAD


class _Host:
    """A host as the protocol promises it: it takes each id once."""

    def __init__(self, events: int) -> None:
        self.started: dict[str, dict[str, object]] = {}
        self.events = events
        self.done = 0

    def answer(self, frame: AnyFrame) -> list[Frame]:
        match frame:
            case Submit(n=n, id=job_id, request=request):
                again = job_id in self.started
                if again and self.started[job_id] != request:
                    return [Failed(n=n, error="another request")]
                self.started[job_id] = request
                return [Accepted(n=n, id=job_id, status="running", again=again)]
            case Attach(n=n, id=job_id, after=after):
                self.done = self.events
                told: list[Frame] = [
                    Event(id=job_id, seq=seq, line=f"line {seq}")
                    for seq in range(after + 1, self.events + 1)
                ]
                return [*told, End(n=n, id=job_id, job={"id": job_id, "text": "answer"})]
            case _:
                raise AssertionError(frame)


@given(
    st.integers(0, 6),
    # For each link: how many bytes come through each way before it is cut.
    st.lists(st.tuples(st.integers(0, 500), st.integers(0, 900)), max_size=30),
)
def test_whatever_is_cut_the_job_runs_once_and_each_event_is_seen_once(
    events: int, cuts: list[tuple[int, int]]
) -> None:
    host = _Host(events)
    following = Following(Submit(n=0, id=ID, request={"task": "x"}), ID, now=0, patience_s=120)
    seen, answers = list[str](), list[object]()
    for n, (there, back) in enumerate([*cuts, (10**9, 10**9)]):
        caller, other = Receiver(), Receiver()
        budget = {"there": there, "back": back}

        def carry(data: bytes, way: str, budget: dict[str, int] = budget) -> bytes:
            through = data[: budget[way]]
            budget[way] -= len(through)
            return through

        outgoing: list[Frame] = [following.next_frame(n)]
        while outgoing:
            arrived = [*other.feed(carry(wire(outgoing.pop(0)), "there"))]
            for question in arrived:
                assert not isinstance(question, BadFrameError)
                data = carry(wire(*host.answer(question)), "back")
                for frame in caller.feed(data):
                    match frame:
                        case Accepted():
                            following.accepted()
                            outgoing.append(following.next_frame(n))
                        case Event(seq=seq, line=line) if following.event(seq):
                            seen.append(line)
                        case End(job=job):
                            following.ended()
                            answers.append(job["text"])
                        case _:
                            pass
        following.cut(now=n)
        if following.stage is Stage.ENDED:
            break
    assert list(host.started) == [ID]
    assert answers == ["answer"]
    assert seen == [f"line {seq}" for seq in range(1, events + 1)]


def test_a_caller_gives_up_sooner_before_the_host_was_ever_reached() -> None:
    following = Following(Submit(n=0, id=ID, request={}), ID, now=10, patience_s=120)
    assert following.gives_up_at == 10 + frames.FIRST_CONTACT_S
    following.next_frame(1)
    assert following.gives_up_at == math.inf
    following.cut(now=50)
    following.cut(now=60)
    assert following.gives_up_at == 170
    assert following.stage is Stage.SUBMITTING


def test_a_frame_is_one_line_of_json() -> None:
    line = frames.encode(Told(n=1, value="a\nb\u2028"))
    assert b"\n" not in line
    assert json.loads(line) == {"t": "told", "n": 1, "value": "a\nb\u2028"}
