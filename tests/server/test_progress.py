import itertools

import pytest
import trio
import trio.testing

from agent_dispatch.model.dispatch import Progress
from agent_dispatch.server.progress import KEEP_ALIVE_S, MAX_MESSAGE_CHARS, report_progress


class Recorder:
    """Notes every notification and when it came."""

    def __init__(self, takes_s: float = 0) -> None:
        self.takes_s = takes_s
        self.sent: list[tuple[float, float, str]] = []
        self._started = trio.current_time()

    async def __call__(self, number: float, message: str) -> None:
        self.sent.append((round(trio.current_time() - self._started, 3), number, message))
        await trio.sleep(self.takes_s)

    @property
    def messages(self) -> list[str]:
        return [message for _, _, message in self.sent]


async def test_a_message_goes_out_at_once(autojump_clock: trio.testing.MockClock) -> None:
    report = Recorder()
    async with report_progress(report, "Dispatch") as post:
        await trio.sleep(3)
        post(Progress("Using tool: Bash"))
        await trio.sleep(1)
    assert report.sent == [(3, 1, "Using tool: Bash")]


async def test_a_flood_is_thinned_to_ten_a_second_and_counted(
    autojump_clock: trio.testing.MockClock,
) -> None:
    report = Recorder()
    async with report_progress(report, "Dispatch") as post:
        for number in range(1000):
            post(Progress(f"step {number}"))
            await trio.sleep(0.001)
    assert len(report.sent) <= 11
    gaps = [b[0] - a[0] for a, b in itertools.pairwise(report.sent)]
    assert min(gaps) > 0.099
    shown = sum(1 + int(m.partition("(+")[2].partition(" ")[0] or 0) for m in report.messages)
    assert 900 <= shown <= 1000


async def test_the_newest_message_wins(autojump_clock: trio.testing.MockClock) -> None:
    report = Recorder()
    async with report_progress(report, "Dispatch") as post:
        for message in ("one", "two", "three"):
            post(Progress(message))
        await trio.sleep(1)
    assert report.messages == ["three (+2 before)"]


async def test_silence_is_broken_with_the_elapsed_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    report = Recorder()
    async with report_progress(report, "Dispatch a task") as post:
        await trio.sleep(9)
        post(Progress("Using tool: Bash"))
        await trio.sleep(60)
    assert report.messages[0] == "Dispatch a task (8 s so far)"
    assert report.messages[1:3] == ["Using tool: Bash", "Using tool: Bash (17 s so far)"]
    times = [at for at, _, _ in report.sent]
    assert max(b - a for a, b in itertools.pairwise(times)) <= KEEP_ALIVE_S


async def test_numbers_grow(autojump_clock: trio.testing.MockClock) -> None:
    report = Recorder()
    async with report_progress(report, "Dispatch") as post:
        for _ in range(5):
            post(Progress("x"))
            await trio.sleep(5)
    numbers = [number for _, number, _ in report.sent]
    assert numbers == sorted(set(numbers))


async def test_a_client_that_takes_nothing_holds_up_nobody(
    autojump_clock: trio.testing.MockClock,
) -> None:
    report = Recorder(takes_s=10**6)
    async with report_progress(report, "Dispatch") as post:
        for number in range(1000):
            post(Progress(f"step {number}"))
            await trio.sleep(0.01)
    assert len(report.sent) == 1
    assert trio.current_time() < 100


async def test_nothing_is_sent_after_the_end(autojump_clock: trio.testing.MockClock) -> None:
    report = Recorder()
    async with report_progress(report, "Dispatch") as post:
        await trio.lowlevel.checkpoint()
    post(Progress("too late"))
    await trio.sleep(100)
    assert report.sent == []


async def test_a_long_message_is_cut(autojump_clock: trio.testing.MockClock) -> None:
    report = Recorder()
    async with report_progress(report, "Dispatch") as post:
        post(Progress("x" * 10_000))
        await trio.sleep(1)
    assert len(report.messages[0]) == MAX_MESSAGE_CHARS + 1


async def test_a_report_that_fails_does_not_fail_the_call(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def report(number: float, message: str) -> None:
        await trio.lowlevel.checkpoint()
        raise ZeroDivisionError

    async with report_progress(report, "Dispatch") as post:
        post(Progress("x"))
        await trio.sleep(100)
    assert "progress is no longer reported" in caplog.text
