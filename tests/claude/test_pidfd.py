"""A process id from /proc is signalled only while it means the process that was found."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from agent_dispatch.claude.process_tree import (
    is_below,
    is_marked,
    kill_all,
    kill_marked,
    signal_each,
)

HOLD = "print('up', flush=True); input()"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="pidfds are Linux's")


@contextmanager
def process(**environ: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-IS", "-c", HOLD]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environ, stdin=pipe, stdout=pipe) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"up\n"
        try:
            yield child
        finally:
            child.kill()


def test_a_stranger_that_has_reused_the_id_is_spared() -> None:
    with process(MARK="other") as stranger:
        # As found by a search that is out of date.
        found = iter([[stranger.pid], []])
        kill_all(lambda: next(found, []), lambda pid: is_marked(pid, b"MARK=ours"))
        signal_each([stranger.pid], signal.SIGTERM, lambda pid: is_below(pid, 1 << 30))
        assert stranger.poll() is None


def test_a_process_with_the_marker_is_killed() -> None:
    with process(MARK="ours-4711") as ours, process(MARK="other") as stranger:
        assert kill_marked("MARK=ours-4711") == 1
        assert ours.wait(timeout=10) == -signal.SIGKILL
        assert stranger.poll() is None


def refuse(number: int) -> Callable[..., int]:
    def call(*args: object) -> int:
        raise OSError(number, os.strerror(number))

    return call


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM, errno.EMFILE, errno.EINVAL])
@pytest.mark.parametrize("where", ["open", "send"])
def test_refused_pidfd_calls_fall_back_to_ids(
    monkeypatch: pytest.MonkeyPatch, where: str, number: int
) -> None:
    with process(MARK="ours") as ours:
        if where == "open":
            monkeypatch.setattr(os, "pidfd_open", refuse(number))
        else:
            monkeypatch.setattr(signal, "pidfd_send_signal", refuse(number))
        signal_each([ours.pid], signal.SIGKILL, lambda pid: True)
        assert ours.wait(timeout=10) == -signal.SIGKILL


def test_a_system_without_pidfds_falls_back_to_ids(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with process(MARK="ours") as ours:
        monkeypatch.delattr(os, "pidfd_open")
        signal_each([ours.pid], signal.SIGKILL, lambda pid: False)
        assert ours.wait(timeout=10) == -signal.SIGKILL


def test_descendants_are_told_from_strangers() -> None:
    with process() as child:
        assert is_below(child.pid, os.getpid())
        assert not is_below(os.getppid(), os.getpid())
        assert not is_below(child.pid, child.pid)
    assert not is_below(child.pid, os.getpid())


def test_no_descriptor_is_left_behind() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with process() as child:
        opened = len(os.listdir("/proc/self/fd"))
        signal_each([child.pid, 1 << 30], signal.SIGCONT, lambda pid: True)
        signal_each([child.pid, 1 << 30], signal.SIGCONT, lambda pid: False)
        assert len(os.listdir("/proc/self/fd")) == opened
    assert len(os.listdir("/proc/self/fd")) <= before
