"""A program on a pseudo-terminal, and what a person would see of it."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyte

REPOSITORY = Path(__file__).parents[2]
PATIENCE_S = 30.0


class Terminal:
    """The screen of a program, and its keyboard."""

    def __init__(self, process: subprocess.Popen[bytes], fd: int, columns: int, rows: int) -> None:
        self.process = process
        self._fd = fd
        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self.screen)

    @property
    def text(self) -> str:
        """All lines of the screen."""
        return "\n".join(line.rstrip() for line in self.screen.display)

    def press(self, keys: str) -> None:
        """Type something."""
        os.write(self._fd, keys.encode())

    def wait_for(self, *texts: str, without: str = "\0") -> str:
        """Read until the screen shows all of the texts, and not another; give the screen."""
        deadline = time.monotonic() + PATIENCE_S
        while not (all(text in self.text for text in texts) and without not in self.text):
            assert time.monotonic() < deadline, f"{texts} not shown:\n{self.text}"
            assert self._read(deadline), f"{texts} not shown before its end:\n{self.text}"
        return self.text

    def wait_exit(self) -> int:
        """Read to the end; give the exit status."""
        deadline = time.monotonic() + PATIENCE_S
        while self._read(deadline):
            assert time.monotonic() < deadline, f"it does not end:\n{self.text}"
        return self.process.wait(PATIENCE_S)

    def resize(self, columns: int, rows: int) -> None:
        """Change the size of the window."""
        _set_size(self._fd, columns, rows)
        self.screen.resize(rows, columns)
        self.process.send_signal(signal.SIGWINCH)

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._fd], [], [], max(deadline - time.monotonic(), 0))
        if not ready:
            return True
        try:
            data = os.read(self._fd, 65536)
        except OSError:  # EIO: nobody has the terminal open.
            return False
        self._stream.feed(data)
        return bool(data)


@contextmanager
def on_terminal(
    argv: Sequence[str], environ: Mapping[str, str], columns: int = 100, rows: int = 24
) -> Iterator[Terminal]:
    """Run a program on a terminal of its own; it is killed at the end if it has not left."""
    ours, theirs = pty.openpty()
    _set_size(ours, columns, rows)
    process = subprocess.Popen(
        argv,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=REPOSITORY,
        env={"TERM": "xterm-256color", "LANG": "C.UTF-8", **environ},
        start_new_session=True,
        preexec_fn=_take_terminal,
    )
    os.close(theirs)
    try:
        yield Terminal(process, ours, columns, rows)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def _take_terminal() -> None:
    # So that Ctrl-C becomes a signal.
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _set_size(fd: int, columns: int, rows: int) -> None:
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
