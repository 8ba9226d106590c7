import math

from hypothesis import given
from hypothesis import strategies as st

from agent_dispatch.remote.caller.followed_job import FIRST_CONTACT_S, FollowedJob
from agent_dispatch.remote.frames import (
    Accepted,
    AnyFrame,
    Attach,
    BadFrameError,
    End,
    Event,
    Failed,
    Frame,
    Receiver,
    Submit,
    lines_of,
)

ID = "0190a0b0c0d07e0f8a1b2c3d4e5f6071"


def wire(*sent: Frame) -> bytes:
    return b"".join(line for n, frame in enumerate(sent) for line in lines_of(frame, n))


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
def test_wherever_the_link_is_cut_the_job_runs_once_and_each_event_is_seen_once(
    events: int, cuts: list[tuple[int, int]]
) -> None:
    host = _Host(events)
    followed = FollowedJob(Submit(n=0, id=ID, request={"task": "x"}), ID, now=0, patience_s=120)
    seen, answers = list[str](), list[object]()
    for n, (there, back) in enumerate([*cuts, (10**9, 10**9)]):
        caller, other = Receiver(), Receiver()
        budget = {"there": there, "back": back}

        def carry(data: bytes, way: str, budget: dict[str, int] = budget) -> bytes:
            through = data[: budget[way]]
            budget[way] -= len(through)
            return through

        outgoing: list[Frame] = [followed.next_frame(n)]
        while outgoing:
            arrived = [*other.feed(carry(wire(outgoing.pop(0)), "there"))]
            for question in arrived:
                assert not isinstance(question, BadFrameError)
                data = carry(wire(*host.answer(question)), "back")
                for frame in caller.feed(data):
                    match frame:
                        case Accepted():
                            followed.accepted()
                            outgoing.append(followed.next_frame(n))
                        case Event(seq=seq, line=line) if followed.is_new_event(seq):
                            seen.append(line)
                        case End(job=job):
                            answers.append(job["text"])
                        case _:
                            pass
        followed.cut(now=n)
        if answers:
            break
    assert list(host.started) == [ID]
    assert answers == ["answer"]
    assert seen == [f"line {seq}" for seq in range(1, events + 1)]


def test_a_caller_gives_up_sooner_if_the_host_was_never_reached() -> None:
    followed = FollowedJob(Submit(n=0, id=ID, request={}), ID, now=10, patience_s=120)
    assert followed.gives_up_at == 10 + FIRST_CONTACT_S
    followed.next_frame(1)
    assert followed.gives_up_at == math.inf
    followed.cut(now=50)
    followed.cut(now=60)
    assert followed.gives_up_at == 170
    assert not followed.is_accepted
