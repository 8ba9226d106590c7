import threading
from collections.abc import Iterator, Sequence
from typing import TextIO

import pytest
import trio
from trio.testing import MockClock

from agent_dispatch.cli.run.progress import ProgressView, Style, style_for
from agent_dispatch.model.dispatch import Progress
from tests.cli.support import Stream, World
from tests.clocks import clock_beside_threads

Script = Sequence[tuple[str, float]]
"""Messages, and the seconds that pass behind each."""


@pytest.fixture
def clock() -> MockClock:
    return clock_beside_threads(0.03)


async def show(style: Style, script: Script, stderr: TextIO) -> None:
    view = ProgressView(stderr, style)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(view.show)
        for message, pause_s in script:
            view.on_progress(Progress(message))
            if pause_s:
                await trio.sleep(pause_s)
        nursery.cancel_scope.cancel()
    view.close()


async def shown(style: Style, script: Script) -> str:
    stream = Stream()
    await show(style, script, stream)
    return stream.text


async def test_the_seconds_go_by_on_a_terminal_while_nothing_is_heard(clock: MockClock) -> None:
    text = await shown(Style.LINE, [("Using tool: Bash", 3.5)])
    seconds = [line.split()[0] for line in text.split("\r") if " s " in line]
    assert list(dict.fromkeys(seconds)) == ["0", "1", "2", "3"]
    assert "\n" not in text


async def test_each_line_wipes_what_stood_behind_it_and_the_last_one_all(clock: MockClock) -> None:
    text = await shown(Style.LINE, [("a rather long message", 0.5), ("short", 0.5)])
    assert text == "\r  0 s  a rather long message\x1b[K\r  0 s  short\x1b[K\r\x1b[J"


async def test_a_line_never_gets_wider_than_the_terminal(clock: MockClock) -> None:
    text = await shown(Style.LINE, [("x" * 500, 1)])
    assert max(len(line.removesuffix("\x1b[K")) for line in text.split("\r")) == 79


async def test_a_stream_gets_each_message_once(clock: MockClock) -> None:
    text = await shown(Style.STREAM, [("one", 0), ("two", 2), ("two", 1), ("three", 1)])
    assert text == "one\ntwo\nthree\n"


async def test_of_a_burst_a_stream_gets_the_newest(clock: MockClock) -> None:
    text = await shown(Style.STREAM, [("first", 1), *((f"step {n}", 0) for n in range(1000))])
    assert text.count("\n") == 51
    assert text.endswith("step 999\n")


async def test_a_log_gets_a_line_a_second_at_most(clock: MockClock) -> None:
    text = await shown(Style.LOG, [(f"step {n}", 0.1) for n in range(100)])
    assert 9 <= text.count("\n") <= 12
    assert text.endswith("step 99\n")


async def test_each_of_several_agents_has_a_line(clock: MockClock) -> None:
    stream = Stream()
    view = ProgressView(stream, Style.LINE)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(view.show)
        for member, message in [(0, "one"), (1, "two"), (None, "three"), (0, "four")]:
            view.on_progress(Progress(message, member=member))
        await trio.sleep(0.5)
        view.on_progress(Progress("five", member=1))
        await trio.sleep(0.5)
        nursery.cancel_scope.cancel()
    view.close()
    assert stream.text == (
        "\r  0 s  four\x1b[K\n  0 s  two\x1b[K\n  0 s  three\x1b[K"
        "\r\x1b[2A  0 s  four\x1b[K\n  0 s  five\x1b[K\n  0 s  three\x1b[K"
        "\r\x1b[2A\x1b[J"
    )


async def test_a_terminal_shows_no_more_agents_than_it_has_lines(clock: MockClock) -> None:
    stream = Stream()
    view = ProgressView(stream, Style.LINE)
    for member in range(100):
        view.on_progress(Progress(f"agent {member}", member=member))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(view.show)
        await trio.sleep(0.05)
        nursery.cancel_scope.cancel()
    assert stream.text.count("\n") == 22
    assert "agent 99" in stream.text


async def test_a_log_gets_the_newest_of_each_agent(clock: MockClock) -> None:
    stream = Stream()
    view = ProgressView(stream, Style.LOG)
    for number in range(30):
        view.on_progress(Progress(f"step {number}", member=number % 3))
    await trio.lowlevel.checkpoint()
    view.close()
    assert stream.text == "step 27\nstep 28\nstep 29\n"


async def test_a_log_tells_what_came_first_first(clock: MockClock) -> None:
    stream = Stream()
    view = ProgressView(stream, Style.LOG)
    for member, message in ((0, "started"), (1, "started"), (1, "done"), (0, "done, too")):
        view.on_progress(Progress(message, member=member))
    await trio.lowlevel.checkpoint()
    view.close()
    assert stream.text == "done\ndone, too\n"


async def test_nothing_is_written_for_nothing(clock: MockClock) -> None:
    assert await shown(Style.LOG, [("", 5), (" \x1b[2J ", 5)]) == ""


class GoneReader(Stream):
    def write(self, text: str) -> int:
        raise BrokenPipeError


class StuckReader(Stream):
    def __init__(self) -> None:
        super().__init__()
        self.released = threading.Event()

    def write(self, text: str) -> int:
        self.released.wait()
        return len(text)


@pytest.fixture
def stuck() -> Iterator[StuckReader]:
    reader = StuckReader()
    yield reader
    reader.released.set()


async def test_a_reader_that_left_does_not_end_the_dispatch() -> None:
    with trio.fail_after(5):
        await show(Style.STREAM, [("one", 0.2), ("two", 0.2)], GoneReader())


async def test_a_stuck_reader_holds_up_neither_the_dispatch_nor_its_end(
    stuck: StuckReader,
) -> None:
    with trio.fail_after(5):
        await show(Style.LINE, [("one", 0.2), ("two", 0.2)], stuck)


@pytest.mark.parametrize(
    ("terminal", "term", "stream", "style"),
    [
        (True, "xterm", False, Style.LINE),
        (True, "xterm", True, Style.STREAM),
        (True, "dumb", False, Style.LOG),
        (False, "xterm", False, Style.LOG),
        (False, "xterm", True, Style.STREAM),
    ],
)
def test_the_style_suits_what_reads_it(
    world: World, terminal: bool, term: str, stream: bool, style: Style
) -> None:
    world.terminal = terminal
    world.environ["TERM"] = term
    assert style_for(world.shell(), stream=stream) is style
