import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from agent_dispatch.cli.event_loop import LEAVE_WITHIN_S, run_trio, until_signal
from agent_dispatch.errors import DispatchError

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


class Exit:
    """Stands for the end of the process."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.left = trio.Event()

    def leave(self, status: int) -> None:
        self.statuses.append(status)
        self.left.set()


@contextmanager
def handling(signum: signal.Signals, handler: signal.Handlers) -> Iterator[None]:
    before = signal.signal(signum, handler)
    try:
        yield
    finally:
        signal.signal(signum, before)


@pytest.mark.parametrize(
    "error", [DispatchError("refused"), BrokenPipeError(), KeyboardInterrupt()]
)
def test_an_error_is_raised_without_the_groups_of_the_nurseries(error: BaseException) -> None:
    async def fail() -> None:
        await trio.lowlevel.checkpoint()
        raise error

    async def work() -> None:
        async with trio.open_nursery() as outer, trio.open_nursery() as inner:
            outer.start_soon(trio.sleep_forever)
            inner.start_soon(fail)

    with pytest.raises(type(error)):
        run_trio(work)


async def test_what_the_work_returns_is_returned() -> None:
    async def work() -> str:
        await trio.lowlevel.checkpoint()
        return "answer"

    with trio.fail_after(5):
        assert await until_signal(work) == "answer"


@pytest.mark.parametrize("signum", SIGNALS)
async def test_a_signal_cancels_the_work_and_waits_for_its_end(signum: signal.Signals) -> None:
    said = trio.Event()
    ended: list[str] = []

    async def work() -> None:
        try:
            signal.raise_signal(signum)
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await said.wait()
            ended.append("work")

    with trio.fail_after(5):
        assert await until_signal(work, said.set) == signum
    assert ended == ["work"]


@pytest.mark.parametrize("signum", SIGNALS)
async def test_a_signal_that_was_ignored_stays_ignored(signum: signal.Signals) -> None:
    async def work() -> str:
        signal.raise_signal(signum)
        await trio.testing.wait_all_tasks_blocked()
        return "answer"

    with handling(signum, signal.SIG_IGN), trio.fail_after(5):
        assert await until_signal(work) == "answer"


async def test_a_result_that_arrived_outranks_the_signal() -> None:
    async def work() -> str:
        with trio.CancelScope(shield=True):
            signal.raise_signal(signal.SIGTERM)
            await trio.testing.wait_all_tasks_blocked()
        return "answer"

    with trio.fail_after(5):
        assert await until_signal(work) == "answer"


async def test_a_second_signal_leaves_at_once() -> None:
    end = Exit()

    async def work() -> None:
        with trio.CancelScope(shield=True):
            signal.raise_signal(signal.SIGINT)
            await trio.testing.wait_all_tasks_blocked()
            assert not end.statuses
            signal.raise_signal(signal.SIGTERM)
            await end.left.wait()

    with trio.fail_after(5):
        await until_signal(work, lambda: None, leave=end.leave)
    assert end.statuses == [130]


async def test_an_end_that_takes_too_long_is_not_waited_for(autojump_clock: MockClock) -> None:
    end = Exit()
    waited_s: list[float] = []

    async def work() -> None:
        with trio.CancelScope(shield=True):
            signalled = trio.current_time()
            signal.raise_signal(signal.SIGTERM)
            await end.left.wait()
            waited_s.append(trio.current_time() - signalled)

    await until_signal(work, lambda: None, leave=end.leave)
    assert end.statuses == [143]
    assert waited_s == pytest.approx([LEAVE_WITHIN_S])
