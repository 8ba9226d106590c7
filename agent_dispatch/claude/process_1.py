"""Process 1 of a container: it must reap every orphan.

Workers and guards outlive the processes that started them, and the kernel then makes them children
of process 1. If that were our program, each would stay a zombie. So process 1 forks, and the child
goes on with the program. The parent only reaps, forwards signals, and exits as the child exits.

Standard library only, because it runs before everything else.
"""

import os
import signal
from contextlib import suppress
from typing import NoReturn

_FORWARDED = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
_WATCHED = {*_FORWARDED, signal.SIGCHLD}
_SI_KERNEL = 0x80  # sigaction(2)


def leave_process_1() -> None:
    """Go on in a child if this is process 1; call it before the first thread."""
    if os.getpid() != 1:
        return
    # Blocked from before the fork, so that none is lost: process 1 ignores signals that it does not
    # wait for.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    try:
        child = os.fork()
    except OSError:
        child = 0  # Go on as process 1; zombies are better than nothing.
    if child:
        _be_init(child)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _be_init(child: int) -> NoReturn:
    status = 1
    try:
        # Our copies would keep pipes open that the child has closed.
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        while (ended := _reap(child)) is None:
            info = signal.sigwaitinfo(_WATCHED)
            # The terminal sends its signals to the child too.
            if info.si_signo in _FORWARDED and info.si_code != _SI_KERNEL:
                with suppress(ProcessLookupError):
                    os.kill(child, info.si_signo)
        status = ended
    finally:
        os._exit(status)


def _reap(child: int) -> int | None:
    """Reap all children that have exited; return the exit status of `child` if it is among them."""
    ended: int | None = None
    with suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            if found[0] == child:
                code = os.waitstatus_to_exitcode(found[1])
                ended = code if code >= 0 else 128 - code
    return ended
