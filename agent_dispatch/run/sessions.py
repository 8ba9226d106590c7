"""One run at a time per session, on the whole machine.

Two runs of the same session at once both succeed, and one of the two branches is lost from its
history (measured with Claude Code 2.1.330). So whoever begins or resumes a session holds a lock
(flock(2)) on a file named after it, and the guard of the run holds it too, until no process of the
run is left.
"""

import contextlib
import errno
import fcntl
import os
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import trio

from agent_dispatch.errors import DispatchError
from agent_dispatch.files import make_private_directory

_POLL_S = (0.02, 0.06)
"""How often a waiter looks again: a lock of another process cannot be waited for without a thread.
Jittered, so that processes take turns."""


_SUFFIX = ".lock"


class SessionsError(DispatchError):
    """The lock of a session cannot be used; nothing was started."""


class HeldSession:
    """The right to begin or to resume one session."""

    def __init__(self, fd: int) -> None:
        """Wrap the locked descriptor."""
        self.fd = fd
        """To be held by the guard as well."""
        self.in_use = False
        """True while a process of the run may be left: then only the guard gives it back."""


class Sessions:
    """The locks of all sessions; made once per service."""

    def __init__(self, directory: Path) -> None:
        """Use `directory`, which is made on first use."""
        self._directory = directory

    @contextlib.asynccontextmanager
    async def hold(
        self, session_id: str, on_wait: Callable[[], object]
    ) -> AsyncIterator[HeldSession]:
        """Hold a session for as long as the block runs, once nobody else does.

        Args:
            session_id: A UUID, in any case of letters.
            on_wait: Called once if somebody else holds it.

        Raises:
            SessionsError: The lock file cannot be used.
        """
        path = str(self._directory / f"{session_id.lower()}{_SUFFIX}")
        told = False
        while (fd := self._try(path)) is None:
            if not told:
                on_wait()
                told = True
            await trio.sleep(random.uniform(*_POLL_S))
        held = HeldSession(fd)
        try:
            yield held
        finally:
            if not held.in_use:
                # Unlink while holding the lock, so that another opener notices the inode change.
                # Leftovers are swept later, and are no reason to fail a run.
                with contextlib.suppress(OSError):
                    os.unlink(path)
            os.close(fd)

    def sweep(self) -> None:
        """Remove the lock files of those who were killed while they held one; may take a while.

        What cannot be removed now may be the next time.
        """
        # No directory yet, or none of the descriptors that are left.
        with contextlib.suppress(OSError):
            for path in self._directory.glob(f"*{_SUFFIX}"):
                # Whatever is wrong with one is told to whoever needs it.
                with contextlib.suppress(SessionsError, OSError):
                    fd = self._try(str(path))
                    if fd is not None:
                        os.unlink(path)
                        os.close(fd)

    def _try(self, path: str) -> int | None:
        try:
            fd = self._open(path)
        except OSError as error:
            raise self._error(error) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(fd), os.stat(path)):
                return fd
        except (BlockingIOError, FileNotFoundError):
            pass  # Held, or unlinked by who held it.
        except OSError as error:
            os.close(fd)
            raise self._error(error) from error
        os.close(fd)
        return None

    def _open(self, path: str) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            return os.open(path, flags, 0o600)
        except FileNotFoundError:
            make_private_directory(str(self._directory))
            return os.open(path, flags, 0o600)

    def _error(self, error: OSError) -> SessionsError:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            remedy = "Raise the limit of open files (ulimit -n 4096), or let fewer runs go at once."
        else:
            remedy = f"Make {self._directory} writable, or point AGENT_DISPATCH_JOBS_DIR elsewhere."
        return SessionsError(
            f"The lock that keeps two runs from going on with one session cannot be used: {error}."
            f" Nothing was started. {remedy}"
        )
