"""Python programs in forks of one process that has imported everything already.

A new Python needs 0.8 s of processor time to import the MCP library. Tests whose subject is what a
program says, and not how its process starts, run it with `start` instead. The program then has its
own process, streams, working directory and environment. Unlike in a new Python, all imports are
done, PYTHON* variables have no effect, and /proc shows the command line of the forked process and,
of the environment, the mark of the census only.
"""

import atexit
import contextlib
import ctypes
import functools
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import struct
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn, cast

import trio

from tests.census import MARK

REPOSITORY = Path(__file__).parents[1]
_LENGTH = struct.Struct("!I")
_NO_TOKEN = "-" * 32


class WarmProcess:
    """A forked program; the part of `trio.Process` that tests use."""

    def __init__(
        self,
        pid: int,
        stdin: trio.lowlevel.FdStream | None,
        stdout: trio.lowlevel.FdStream | None,
        stderr: trio.lowlevel.FdStream | None,
        ended: int,
    ) -> None:
        self.pid = pid
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self._ended = ended
        self._returncode: int | None = None

    @property
    def returncode(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        if self._returncode is None:
            with contextlib.suppress(BlockingIOError):
                self._returncode = int(os.read(self._ended, 16))
                os.close(self._ended)
        return self._returncode

    async def wait(self) -> int:
        """Wait for the end; returns the exit status."""
        while (status := self.returncode) is None:
            await trio.lowlevel.wait_readable(self._ended)
        return status

    def send_signal(self, signum: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signum)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


def start(
    module: str,
    *args: str,
    env: Mapping[str, str],
    cwd: Path = REPOSITORY,
    stdin: int = subprocess.PIPE,
    stdout: int = subprocess.PIPE,
    stderr: int | None = subprocess.PIPE,
    new_session: bool = False,
    prefix: tuple[str, ...] = (),
    pass_fds: tuple[int, ...] = (),
) -> WarmProcess:
    """Run a module as `python -m` does, in a fork of the warm process.

    Args:
        module: Its name.
        args: Its arguments.
        env: Its whole environment.
        cwd: Its working directory.
        stdin: A descriptor, PIPE or DEVNULL.
        stdout: A descriptor, PIPE or DEVNULL.
        stderr: A descriptor, PIPE, or None for that of this process.
        new_session: Let it lead a session of its own.
        prefix: A program that becomes the warm process; there is one of each prefix.
        pass_fds: Descriptors that the prefix needs.
    """
    with contextlib.ExitStack() as theirs:

        def pipe(*, to_child: bool) -> tuple[int, int]:
            reader, writer = os.pipe()
            our_end, their_end = (writer, reader) if to_child else (reader, writer)
            theirs.callback(os.close, their_end)
            os.set_blocking(our_end, False)
            return our_end, their_end

        def stream(wanted: int, *, to_child: bool) -> tuple[trio.lowlevel.FdStream | None, int]:
            if wanted == subprocess.PIPE:
                our_end, their_end = pipe(to_child=to_child)
                return trio.lowlevel.FdStream(our_end), their_end
            if wanted == subprocess.DEVNULL:
                return None, theirs.enter_context(open(os.devnull, "r+b")).fileno()
            return None, wanted

        our_stdin, their_stdin = stream(stdin, to_child=True)
        our_stdout, their_stdout = stream(stdout, to_child=False)
        our_stderr, their_stderr = stream(2 if stderr is None else stderr, to_child=False)
        ended, their_ended = pipe(to_child=False)
        request = json.dumps(
            {"module": module, "args": args, "env": env, "cwd": str(cwd), "session": new_session}
        ).encode()
        sock = _warm_python(prefix, pass_fds)
        fds = [their_stdin, their_stdout, their_stderr, their_ended]
        socket.send_fds(sock, [_LENGTH.pack(len(request))], fds)
        sock.sendall(request)
        (pid,) = _LENGTH.unpack(sock.recv(_LENGTH.size, socket.MSG_WAITALL))
    return WarmProcess(pid, our_stdin, our_stdout, our_stderr, ended)


@functools.cache
def _warm_python(prefix: tuple[str, ...], pass_fds: tuple[int, ...]) -> socket.socket:
    """Start the warm process, and return our end of its socket."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "tests.warm", str(theirs.fileno())],
            cwd=REPOSITORY,
            env={"PATH": "/usr/bin:/bin", MARK: _NO_TOKEN},
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno(), *pass_fds],
        )
    atexit.register(_stop, process, ours)
    return ours


def _stop(process: subprocess.Popen[bytes], sock: socket.socket) -> None:
    sock.close()
    process.wait()


def _serve(sock: socket.socket) -> None:
    """Fork for each request, and report the end of each forked process, until the tests end."""
    ends: dict[int, int] = {}
    woken, wake = socket.socketpair()
    wake.setblocking(False)
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with selectors.DefaultSelector() as selector:
        selector.register(sock, selectors.EVENT_READ)
        selector.register(woken, selectors.EVENT_READ)
        while True:
            ready = {key.fileobj for key, _ in selector.select()}
            if woken in ready:
                woken.recv(4096)
                _report_ends(ends)
            if sock in ready:
                header, fds, _, _ = socket.recv_fds(sock, _LENGTH.size, 4)
                if not header:
                    return
                (length,) = _LENGTH.unpack(header)
                payload = sock.recv(length, socket.MSG_WAITALL)
                pid = os.fork()
                if pid == 0:
                    _be_program(json.loads(payload), fds[:3])
                ends[pid] = fds.pop()
                for fd in fds:
                    os.close(fd)
                sock.sendall(_LENGTH.pack(pid))


def _report_ends(ends: dict[int, int]) -> None:
    while ends:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        fd = ends.pop(pid)
        # The test may have gone.
        with contextlib.suppress(BrokenPipeError):
            os.write(fd, str(os.waitstatus_to_exitcode(status)).encode())
        os.close(fd)


def _show_in_proc(token: str) -> None:
    """Put a token where the census finds it; setenv(3) does not change what /proc shows."""
    if sys.platform == "linux":
        shown = Path("/proc/self/environ").read_bytes()
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        # The field `env_start` of proc(5) is the 50th; the first two are cut off.
        place = int(fields[50 - 3]) + shown.index(f"{MARK}=".encode()) + len(MARK) + 1
        ctypes.memmove(place, token.encode(), len(_NO_TOKEN))


def _be_program(request: Mapping[str, object], streams: Sequence[int]) -> NoReturn:
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if request["session"]:
            os.setsid()
        for number, fd in enumerate(streams):
            os.dup2(fd, number)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        os.chdir(str(request["cwd"]))
        environ = cast("dict[str, str]", request["env"])
        if MARK in environ:
            _show_in_proc(environ[MARK])
        os.environ.clear()
        os.environ.update(environ)
        sys.argv = ["", *request["args"]]  # type: ignore[misc]  # JSON's
        runpy.run_module(str(request["module"]), run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except Exception:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(status)


if __name__ == "__main__":
    import gc

    from agent_dispatch.preload import preload_modules

    for module in ("server.http_server", "worker", "cli.app"):
        importlib.import_module(f"agent_dispatch.{module}")
    importlib.import_module("tests.server.fake_service")
    preload_modules()

    # Forked processes share the pages of what exists now.
    gc.collect()
    gc.freeze()
    _serve(socket.socket(fileno=int(sys.argv[1])))
