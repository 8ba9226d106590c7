import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from agent_dispatch.remote.caller.connection import Connection, LinkLostError
from agent_dispatch.remote.frames import Ask, Event, Frame, Told, encode


async def _send(data: bytes) -> None:
    await trio.lowlevel.checkpoint()


def _feed(connection: Connection, frame: Frame) -> None:
    connection.wire.feed(encode(frame) + b"\n")


async def test_answers_find_their_requests_in_any_order() -> None:
    connection, answers = Connection(_send, dead_s=20), dict[str, object]()

    async def ask(what: str) -> None:
        answers[what] = await connection.ask(lambda n: Ask(n=n, what=what))

    async with trio.open_nursery() as nursery:
        for what in ("first", "second"):
            nursery.start_soon(ask, what)
            await wait_all_tasks_blocked()
        _feed(connection, Told(n=2, value="b"))
        _feed(connection, Told(n=9, value="nobody asked"))
        _feed(connection, Told(n=1, value="a"))
    assert answers == {"first": Told(n=1, value="a"), "second": Told(n=2, value="b")}


async def test_a_lost_link_fails_requests_at_once() -> None:
    connection = Connection(_send, dead_s=20)

    async def ask() -> None:
        with pytest.raises(LinkLostError):
            await connection.ask(lambda n: Ask(n=n, what="agents"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        connection.end()
    with trio.fail_after(5):
        await ask()


async def test_events_reach_the_listeners_of_their_job_while_they_listen() -> None:
    connection, lines = Connection(_send, dead_s=20), list[str]()
    with connection.events("a", lambda event: lines.append(event.line)):
        _feed(connection, Event(id="a", seq=1, line="heard"))
        _feed(connection, Event(id="b", seq=1, line="of another job"))
    _feed(connection, Event(id="a", seq=2, line="too late"))
    await trio.lowlevel.checkpoint()
    assert lines == ["heard"]


async def test_a_connection_is_idle_while_no_request_waits(autojump_clock: object) -> None:
    connection = Connection(_send, dead_s=20)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.ask, lambda n: Ask(n=n, what="agents"))
        await trio.sleep(10)
        assert connection.idle_s == 0
        _feed(connection, Told(n=1))
    await trio.sleep(3)
    assert connection.idle_s == 3
