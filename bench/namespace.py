"""Separate namespaces for a benchmark: it can mount disks, and leaves no process behind."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn

_INSIDE = "AGENT_DISPATCH_BENCH_INSIDE"
_UNSHARE = ("unshare", "--map-root-user", "--mount", "--pid", "--mount-proc", "--kill-child")


@dataclass(frozen=True, kw_only=True)
class Enclosure:
    """The namespaces of this process."""

    is_own: bool
    """Whether they are separate: it may mount disks, and its processes end with it."""
    description: str


def enclose(module: str, arguments: Sequence[str]) -> Enclosure | int:
    """Run `python -m module` again in separate namespaces, if the machine allows that.

    Returns:
        The exit status of that run. Inside it, and without namespaces, the `Enclosure`.
    """
    if os.environ.get(_INSIDE):
        _stand_beside_the_first_process()
        return Enclosure(is_own=True, description="own")
    try:
        probe = subprocess.run([*_UNSHARE, "true"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return Enclosure(is_own=False, description="none: no unshare(1) here")
    if probe.returncode != 0:
        return Enclosure(is_own=False, description=f"none: {probe.stderr.strip()}")
    # If it is killed, its remaining files are removed with this folder.
    with tempfile.TemporaryDirectory(prefix="agent-dispatch-bench-") as scratch:
        environ = {**os.environ, _INSIDE: "1", "TMPDIR": scratch}
        command = [*_UNSHARE, sys.executable, "-m", module, *arguments]
        with subprocess.Popen(command, env=environ) as inside, _signals_left_to(inside):
            return inside.wait()


@contextmanager
def _signals_left_to(inside: subprocess.Popen[bytes]) -> Iterator[None]:
    """Outlive SIGINT, and pass on the other ends, while the block runs."""
    # A terminal also sends SIGINT to the processes inside, which report their progress.
    before = {signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN)}
    for signum in (signal.SIGTERM, signal.SIGHUP):
        before[signum] = signal.signal(signum, lambda _number, _frame: inside.kill())
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _stand_beside_the_first_process() -> None:
    """Continue in a child, because process 1 of a namespace has to reap all orphans."""
    del os.environ[_INSIDE]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if child := os.fork():
        _be_first_process(child)


def _be_first_process(child: int) -> NoReturn:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        pid, status = os.wait()
        if pid == child:
            # The kernel now kills all other processes of the namespace.
            os._exit(abs(os.waitstatus_to_exitcode(status)))
