"""What the first process of a container has to do: reap every process that nobody else will.

Workers and guards outlive those who started them, and the kernel then makes them children of
process 1. If that is us, each would stay a zombie. So process 1 forks, the program goes on in the
child, and the parent does nothing but reap, pass signals on, and end as the child ends.

Standard library only: it comes before everything else.
"""

import os
import signal
from contextlib import suppress
from typing import NoReturn

_PASSED_ON = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
_WATCHED = {*_PASSED_ON, signal.SIGCHLD}
_SI_KERNEL = 0x80  # sigaction(2)


def leave_process_1() -> None:
    """Go on in a child if this is process 1; call it before the first thread."""
    if os.getpid() != 1:
        return
    # Blocked from before the fork, so that none is lost: process 1 ignores what it does not wait
    # for.
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
        # A copy would keep the ends of pipes open that the child has closed.
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        while (ended := _reap(child)) is None:
            info = signal.sigwaitinfo(_WATCHED)
            # What the terminal sends, the child gets by itself.
            if info.si_signo in _PASSED_ON and info.si_code != _SI_KERNEL:
                with suppress(ProcessLookupError):
                    os.kill(child, info.si_signo)
        status = ended
    finally:
        os._exit(status)


def _reap(child: int) -> int | None:
    """Reap all that have ended; the exit status to end with if the child is among them."""
    ended: int | None = None
    with suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            if found[0] == child:
                code = os.waitstatus_to_exitcode(found[1])
                ended = code if code >= 0 else 128 - code
    return ended
