"""Namespaces of a benchmark's own: disks of its own, and nothing left when it ends."""

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
    """Where this process is."""

    is_own: bool
    """In namespaces of its own: it may mount, and what it starts ends with it."""
    told: str


def enclose(module: str, arguments: Sequence[str]) -> Enclosure | int:
    """Run `python -m module` again in namespaces of its own, if the machine allows that.

    Returns:
        The exit status of that run; or, inside, and where there are no namespaces, where we are.
    """
    if os.environ.get(_INSIDE):
        _stand_beside_the_first_process()
        return Enclosure(is_own=True, told="own")
    try:
        probe = subprocess.run([*_UNSHARE, "true"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return Enclosure(is_own=False, told="none: no unshare(1) here")
    if probe.returncode != 0:
        return Enclosure(is_own=False, told=f"none: {probe.stderr.strip()}")
    # What is left of files when it is killed goes with this folder.
    with tempfile.TemporaryDirectory(prefix="agent-dispatch-bench-") as scratch:
        environ = {**os.environ, _INSIDE: "1", "TMPDIR": scratch}
        command = [*_UNSHARE, sys.executable, "-m", module, *arguments]
        with subprocess.Popen(command, env=environ) as inside, _signals_left_to(inside):
            return inside.wait()


@contextmanager
def _signals_left_to(inside: subprocess.Popen[bytes]) -> Iterator[None]:
    """Outlive SIGINT, and pass on the other ends, while the block runs."""
    # A terminal sends SIGINT to those inside as well, who then say how far they came.
    before = {signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN)}
    for signum in (signal.SIGTERM, signal.SIGHUP):
        before[signum] = signal.signal(signum, lambda _number, _frame: inside.kill())
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _stand_beside_the_first_process() -> None:
    """Go on in a child: the first process of a namespace has to wait for all orphans."""
    del os.environ[_INSIDE]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if child := os.fork():
        _be_first_process(child)


def _be_first_process(child: int) -> NoReturn:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        pid, status = os.wait()
        if pid == child:
            # Everybody else in here is killed by the kernel now.
            os._exit(abs(os.waitstatus_to_exitcode(status)))
