import weakref

import trio
from trio.testing import MockClock

from agent_dispatch.run.time_limit import TimeLimit


class Run:
    """What holds a limit, and is told by it."""

    def __init__(self) -> None:
        self.limit = TimeLimit(10, self.note)
        self.noted = 0

    def note(self) -> None:
        self.noted += 1


async def test_it_counts_from_its_beginning_and_can_be_moved(autojump_clock: MockClock) -> None:
    run = Run()
    await trio.sleep(100)
    with run.limit.scope:
        run.limit.begin()
        run.limit.move_to(trio.current_time() + 30)
        await trio.sleep_forever()
    assert (run.limit.has_passed, run.limit.timeout_s) == (True, 30)
    assert trio.current_time() == 130
    assert run.noted == 1


async def test_who_was_told_of_its_beginning_goes_with_its_last_user(
    autojump_clock: MockClock,
) -> None:
    run = Run()
    run.limit.begin()
    await trio.lowlevel.checkpoint()
    gone = weakref.ref(run)
    del run
    assert gone() is None


async def test_it_is_paused_until_the_last_of_several_pauses_ends(
    autojump_clock: MockClock,
) -> None:
    limit = TimeLimit(10)
    with limit.paused():
        await trio.sleep(100)
    with limit.scope:
        limit.begin()
        await trio.sleep(4)
        with limit.paused():
            await trio.sleep(50)
            with limit.paused():
                await trio.sleep(50)
            await trio.sleep(50)
        assert limit.paused_s == 250
        await trio.sleep_forever()
    assert trio.current_time() == 260
    assert limit.timeout_s == 10
