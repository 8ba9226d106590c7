import itertools

import pytest
import trio
import trio.testing

from agent_dispatch.core.stream.progress_text import with_agent
from agent_dispatch.model.dispatch import Progress
from agent_dispatch.server.calls.progress import (
    KEEP_ALIVE_S,
    MAX_MESSAGE_CHARS,
    MAX_UNSENT,
    report_progress,
)


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


def called(tool: str, run_s: float = 0) -> Progress:
    return with_agent("infra", Progress(tool, is_tool=True), run_s)


async def test_a_flood_of_calls_is_thinned_to_ten_a_second(
    autojump_clock: trio.testing.MockClock,
) -> None:
    report = Recorder()
    async with report_progress(report, "Dispatch") as post:
        for number in range(1000):
            post(called(f"Bash: step {number}"))
            await trio.sleep(0.001)
    assert len(report.sent) <= 12
    gaps = [b[0] - a[0] for a, b in itertools.pairwise(report.sent[:-1])]
    assert min(gaps) > 0.099
    assert report.messages[-1] == "infra · Bash: step 999"


async def test_the_newest_call_wins_and_no_sentence_is_dropped_for_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    report = Recorder()
    async with report_progress(report, "Dispatch") as post:
        post(with_agent("infra", Progress("I look at the pods."), 1))
        for tool in ("Bash: one", "Bash: two", "Read: three"):
            post(called(tool, 2))
        post(with_agent("infra", Progress("Three are down."), 3))
        post(called("Grep: error", 3.6))
    assert report.messages == [
        "infra · I look at the pods.",
        "infra · Read: three · 2 s",
        "infra · Three are down.",
        "infra · Grep: error · 4 s",
    ]


async def test_the_newest_of_too_many_sentences_are_sent(
    autojump_clock: trio.testing.MockClock,
) -> None:
    report = Recorder()
    async with report_progress(report, "Dispatch") as post:
        for number in range(10_000):
            post(Progress(f"step {number}"))
    assert report.messages[-1] == "step 9999"
    assert len(report.messages) <= MAX_UNSENT


async def test_a_slow_client_delays_the_answer_only_briefly(
    autojump_clock: trio.testing.MockClock,
) -> None:
    report = Recorder(takes_s=60)
    async with report_progress(report, "Dispatch") as post:
        post(Progress("one"))
        post(Progress("two"))
    assert trio.current_time() < 1


async def test_silence_is_broken_with_the_elapsed_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    report = Recorder()
    async with report_progress(report, "Dispatch a task") as post:
        await trio.sleep(9)
        post(called("Bash: make", 5))
        await trio.sleep(60)
    assert report.messages[0] == "Dispatch a task · 8 s"
    assert report.messages[1:3] == ["infra · Bash: make · 5 s", "infra · Bash: make · 13 s"]
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


async def test_a_client_that_reads_no_progress_delays_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    report = Recorder(takes_s=10**6)
    async with report_progress(report, "Dispatch") as post:
        for number in range(1000):
            post(Progress(f"step {number}"))
            await trio.sleep(0.01)
    assert len(report.sent) == 2
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
