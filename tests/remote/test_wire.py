import pytest
import trio
from trio.testing import MockClock

from agent_dispatch.remote.frames import AnyFrame, Event, Ping, Pong, Receiver, Told, encode
from agent_dispatch.remote.wire import Wire, dead_after_s


class Sent:
    """Collects what a wire sends."""

    def __init__(self) -> None:
        self.frames: list[tuple[float, object]] = []
        self._receiver = Receiver()

    async def send(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.frames += ((trio.current_time(), frame) for frame in self._receiver.feed(data))


@pytest.mark.parametrize(("lease_s", "dead_s"), [(120, 20), (60, 20), (30, 10), (5, 5 / 3)])
def test_a_link_is_dead_after_a_third_of_the_lease_at_most(lease_s: float, dead_s: float) -> None:
    assert dead_after_s(lease_s) == dead_s


async def test_a_silent_link_is_pinged_and_then_dead(autojump_clock: MockClock) -> None:
    began, sent = trio.current_time(), Sent()
    wire = Wire(sent.send, lambda frame: None, dead_s=20)
    await wire.run()
    assert [(at - began, frame) for at, frame in sent.frames] == [
        (5, Ping()),
        (10, Ping()),
        (15, Ping()),
    ]
    assert trio.current_time() == began + 20


async def test_any_byte_is_a_sign_of_life(autojump_clock: MockClock) -> None:
    began = trio.current_time()
    wire = Wire(Sent().send, lambda frame: None, dead_s=20)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wire.run)
        await trio.sleep(18)
        wire.feed(b"{")
    assert trio.current_time() == began + 38


async def test_a_link_that_sends_is_not_pinged(autojump_clock: MockClock) -> None:
    sent = Sent()
    wire = Wire(sent.send, lambda frame: None, dead_s=20)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wire.run)
        for n in range(5):
            await trio.sleep(4)
            wire.post(Told(n=n))
    assert Ping() not in [frame for _, frame in sent.frames]


async def test_short_frames_pass_a_long_one_and_pings_are_answered() -> None:
    sent, received = Sent(), list[AnyFrame]()
    wire = Wire(sent.send, received.append, dead_s=20)
    wire.post(Told(n=1, value="x" * 900_000))
    wire.post(Event(id="a", seq=1, line="now"))
    wire.feed(encode(Ping()) + b"\n" + encode(Pong()) + b"\n" + encode(Told(n=2)) + b"\n")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wire.run)
        await wire.flushed()
        nursery.cancel_scope.cancel()
    kinds = [type(frame) for _, frame in sent.frames]
    assert kinds == [Event, Pong, Told]
    assert received == [Told(n=2)]


@pytest.mark.parametrize("error", [trio.BrokenResourceError, trio.ClosedResourceError])
async def test_a_link_whose_other_end_takes_no_more_bytes_is_over(error: type[Exception]) -> None:
    async def send(data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        raise error

    wire = Wire(send, lambda frame: None, dead_s=20)
    wire.post(Told(n=1))
    with trio.fail_after(5):
        await wire.run()
