import os
import pty
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_dispatch.server.stdio.byte_streams import (
    CHUNK_BYTES,
    EDGE_BYTES,
    READ_MARK_BYTES,
    SEND_MARK_BYTES,
    LineReader,
    Outbox,
    Overlong,
)


@dataclass
class Pipe:
    read_fd: int
    write_fd: int

    def close(self) -> None:
        for fd in (self.read_fd, self.write_fd):
            if fd >= 0:
                os.close(fd)

    def close_read(self) -> None:
        os.close(self.read_fd)
        self.read_fd = -1

    def close_write(self) -> None:
        os.close(self.write_fd)
        self.write_fd = -1


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe(*os.pipe())
    yield pipe
    pipe.close()


async def lines_of(reader: LineReader) -> AsyncIterator[bytes | Overlong]:
    while (line := await reader.receive()) is not None:
        yield line


async def test_the_time_before_the_reader_began_counts_as_waiting(
    pipe: Pipe, autojump_clock: trio.testing.MockClock
) -> None:
    began = trio.current_time()
    os.write(pipe.write_fd, b"second\n")
    reader = LineReader(pipe.read_fd, b"first\n", since=began - 5)
    for line in (b"first", b"second"):
        assert await reader.receive() == line
        assert reader.arrived_at == began - 5
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader.receive)
        await trio.testing.wait_all_tasks_blocked()
        os.write(pipe.write_fd, b"third\n")
    assert reader.arrived_at >= began


async def test_lines_are_whole_however_they_arrive(pipe: Pipe) -> None:
    reader = LineReader(pipe.read_fd)
    received: list[bytes | Overlong] = []

    async def read() -> None:
        received.extend([line async for line in lines_of(reader)])

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            for part in (b"on", b"e\ntwo\n\nth", b"ree\nlast"):
                os.write(pipe.write_fd, part)
                await trio.testing.wait_all_tasks_blocked()
            pipe.close_write()
    assert received == [b"one", b"two", b"", b"three", b"last"]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.binary(max_size=40).map(lambda b: b.replace(b"\n", b" ")), max_size=8))
def test_any_lines_survive_the_pipe(lines: list[bytes]) -> None:
    async def check() -> None:
        pipe = Pipe(*os.pipe())
        os.write(pipe.write_fd, b"".join(line + b"\n" for line in lines))
        pipe.close_write()
        reader = LineReader(pipe.read_fd, max_line_bytes=100)
        assert [line async for line in lines_of(reader)] == lines
        pipe.close()

    trio.run(check)


async def test_a_line_above_the_limit_leaves_its_ends_and_the_next_line_works(pipe: Pipe) -> None:
    limit = 3 * CHUNK_BYTES
    reader = LineReader(pipe.read_fd, max_line_bytes=limit)
    long_line = b"HEAD" + b"x" * (5 * limit) + b"TAIL"
    outbox = Outbox(pipe.write_fd, on_gone=lambda: None)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outbox.run)
            outbox.post(long_line + b"\nshort\n")
            overlong = await reader.receive()
            assert isinstance(overlong, Overlong)
            assert overlong.head.startswith(b"HEAD")
            assert overlong.tail.endswith(b"TAIL")
            assert len(overlong.head) <= EDGE_BYTES
            assert len(overlong.tail) <= EDGE_BYTES
            assert overlong.size == len(long_line)
            assert await reader.receive() == b"short"
            nursery.cancel_scope.cancel()


async def test_a_line_just_above_the_limit_is_overlong_even_if_it_came_at_once(pipe: Pipe) -> None:
    reader = LineReader(pipe.read_fd, max_line_bytes=4)
    os.write(pipe.write_fd, b"1234\n12345\n1234\n")
    assert await reader.receive() == b"1234"
    assert await reader.receive() == Overlong(b"12345", b"12345", 5)
    assert await reader.receive() == b"1234"


async def test_a_file_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "requests"
    path.write_bytes(b"one\ntwo")
    with path.open("rb") as file:
        reader = LineReader(file.fileno())
        assert [line async for line in lines_of(reader)] == [b"one", b"two"]
        assert not reader.is_hung_up()
        reader.close()


async def test_the_end_of_a_terminals_input_is_final() -> None:
    controller, terminal = pty.openpty()
    try:
        reader = LineReader(terminal)
        os.write(controller, b"one\n\x04two\n")
        with trio.fail_after(5):
            assert [line async for line in lines_of(reader)] == [b"one"]
            assert await reader.receive() is None
    finally:
        os.close(controller)
        os.close(terminal)


async def test_a_read_error_ends_the_input(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    assert await LineReader(fd).receive() is None
    assert "directory" in caplog.text
    os.close(fd)


async def test_a_hang_up_is_seen_behind_unread_bytes(pipe: Pipe) -> None:
    reader = LineReader(pipe.read_fd)
    os.write(pipe.write_fd, b"unread\n")
    assert not reader.is_hung_up()
    pipe.close_write()
    assert reader.is_hung_up()
    assert await reader.receive() == b"unread"


def test_a_half_closed_socket_has_hung_up() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        reader = LineReader(ours.fileno())
        theirs.sendall(b"unread\n")
        assert not reader.is_hung_up()
        theirs.shutdown(socket.SHUT_WR)
        assert reader.is_hung_up()


def test_descriptors_are_blocking_again_after_close(pipe: Pipe) -> None:
    reader = LineReader(pipe.read_fd)
    outbox = Outbox(pipe.write_fd, on_gone=lambda: None)
    assert not os.get_blocking(pipe.read_fd)
    assert not os.get_blocking(pipe.write_fd)
    reader.close()
    outbox.close()
    assert os.get_blocking(pipe.read_fd)
    assert os.get_blocking(pipe.write_fd)


async def drain(fd: int, size: int) -> bytes:
    os.set_blocking(fd, False)
    received = bytearray()
    while len(received) < size:
        try:
            received += os.read(fd, CHUNK_BYTES)
        except BlockingIOError:
            await trio.lowlevel.wait_readable(fd)
    return bytes(received)


async def test_frames_are_whole_and_in_order_even_if_their_senders_are_cancelled(
    pipe: Pipe,
) -> None:
    outbox = Outbox(pipe.write_fd, on_gone=lambda: None)
    frames = [bytes([65 + n]) * SEND_MARK_BYTES + b"\n" for n in range(4)]
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outbox.run)
            with trio.CancelScope() as impatient:
                async with trio.open_nursery() as senders:
                    for frame in frames:
                        senders.start_soon(outbox.send, frame)
                    await trio.testing.wait_all_tasks_blocked()
                    impatient.cancel()
            received = await drain(pipe.read_fd, sum(map(len, frames)))
            nursery.cancel_scope.cancel()
    assert sorted(received.splitlines(keepends=True)) == frames


async def test_a_small_frame_is_written_without_a_writer_task(pipe: Pipe) -> None:
    outbox = Outbox(pipe.write_fd, on_gone=lambda: None)
    await outbox.send(b"frame\n")
    assert os.read(pipe.read_fd, 100) == b"frame\n"


async def test_senders_wait_for_a_slow_client_but_not_at_exit(
    pipe: Pipe,
) -> None:
    outbox = Outbox(pipe.write_fd, on_gone=lambda: None)
    sent = trio.Event()

    async def send() -> None:
        await outbox.send(b"x" * (2 * SEND_MARK_BYTES))
        sent.set()

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outbox.run)
            nursery.start_soon(send)
            await trio.testing.wait_all_tasks_blocked()
            assert not sent.is_set()
            assert not outbox.is_backed_up
            outbox.post(b"y" * READ_MARK_BYTES)
            assert outbox.is_backed_up
            outbox.release_senders()
            await sent.wait()
            nursery.cancel_scope.cancel()


async def test_flushing_waits_for_the_last_byte(pipe: Pipe) -> None:
    outbox = Outbox(pipe.write_fd, on_gone=lambda: None)
    frame = b"x" * SEND_MARK_BYTES + b"\n"
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outbox.run)
            outbox.post(frame)
            nursery.start_soon(drain, pipe.read_fd, len(frame))
            await outbox.flush()
            nursery.cancel_scope.cancel()


async def test_a_client_that_is_gone_is_reported_once_and_gets_no_frames(pipe: Pipe) -> None:
    gone: list[str] = []
    outbox = Outbox(pipe.write_fd, on_gone=lambda: gone.append("gone"))
    pipe.close_read()
    for _ in range(2):
        with pytest.raises(trio.BrokenResourceError):
            await outbox.send(b"frame\n")
    await outbox.run()
    await outbox.flush()
    assert gone == ["gone"]


async def test_a_client_that_leaves_while_frames_wait_releases_all_senders(pipe: Pipe) -> None:
    gone = trio.Event()
    outbox = Outbox(pipe.write_fd, on_gone=gone.set)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outbox.run)
            nursery.start_soon(outbox.send, b"x" * READ_MARK_BYTES)
            await trio.testing.wait_all_tasks_blocked()
            pipe.close_read()
            await gone.wait()


async def test_frames_go_to_a_file_too(tmp_path: Path) -> None:
    path = tmp_path / "answers"
    with path.open("wb") as file:
        outbox = Outbox(file.fileno(), on_gone=lambda: None)
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(outbox.run)
                await outbox.send(b"one\n")
                await outbox.send(b"x" * (2 * CHUNK_BYTES))
                await outbox.flush()
                nursery.cancel_scope.cancel()
    assert path.read_bytes() == b"one\n" + b"x" * (2 * CHUNK_BYTES)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux only")
async def test_a_full_disk_counts_as_a_client_that_is_gone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fd = os.open("/dev/full", os.O_WRONLY)
    gone = trio.Event()
    outbox = Outbox(fd, on_gone=gone.set)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outbox.run)
            await outbox.send(b"frame\n")
            await gone.wait()
    assert "can no longer be written" in caplog.text
    os.close(fd)
