"""Python programs in forks of one process that has imported everything already.

A new Python needs 0.8 s of processor time to import the MCP library, and 0.3 s for a dispatch from
the command line. Tests whose subject is what a program says, and not how its process starts, run it
from here instead: with `start` or `run` on Trio, with `begin` without. The program then has its own
process, streams, working directory and environment. Unlike in a new Python, all imports are done,
PYTHON* variables have no effect, and /proc shows the command line of the forked process and, of the
environment, the mark of the census only.
"""

import atexit
import contextlib
import ctypes
import functools
import importlib
import json
import os
import runpy
import select
import selectors
import signal
import socket
import struct
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, NoReturn, TypedDict, cast

import trio

from tests.census import MARK

REPOSITORY = Path(__file__).parents[1]
_LENGTH = struct.Struct("!I")
_NO_TOKEN = "-" * 32
_libc = ctypes.CDLL(None, use_errno=True)


class _Forked:
    """A forked program."""

    def __init__(self, pid: int, ended: int) -> None:
        self.pid = pid
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


class WarmProcess(_Forked):
    """The part of `trio.Process` that tests use."""

    def __init__(
        self,
        pid: int,
        ended: int,
        stdin: trio.lowlevel.FdStream | None,
        stdout: trio.lowlevel.FdStream | None,
        stderr: trio.lowlevel.FdStream | None,
    ) -> None:
        super().__init__(pid, ended)
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr

    async def wait(self) -> int:
        """Wait for the end; returns the exit status."""
        while (status := self.returncode) is None:
            await trio.lowlevel.wait_readable(self._ended)
        return status


class WarmProgram(_Forked):
    """The part of `subprocess.Popen` that tests use."""

    def __init__(
        self,
        pid: int,
        ended: int,
        stdin: IO[bytes] | None,
        stdout: IO[bytes] | None,
        stderr: IO[bytes] | None,
    ) -> None:
        super().__init__(pid, ended)
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; returns the exit status."""
        while (status := self.returncode) is None:
            if not select.select([self._ended], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("a warm program", timeout or 0)
        return status

    def communicate(self, timeout: float = 60) -> tuple[str, str]:
        """Read what it writes from now on, on stdout and stderr, and wait for its end."""
        deadline = time.monotonic() + timeout
        said = {file: b"" for file in (self.stdout, self.stderr) if file is not None}
        with selectors.DefaultSelector() as selector:
            for file in said:
                os.set_blocking(file.fileno(), False)
                selector.register(file, selectors.EVENT_READ)
            while selector.get_map():
                ready = selector.select(max(0, deadline - time.monotonic()))
                if not ready:
                    raise subprocess.TimeoutExpired("a warm program", timeout)
                for key, _ in ready:
                    file = cast("IO[bytes]", key.fileobj)
                    chunk = file.read()
                    if chunk:
                        said[file] += chunk
                    elif chunk == b"":
                        selector.unregister(file)
                        file.close()
        self.wait(max(0, deadline - time.monotonic()))
        out, err = (b"" if f is None else said[f] for f in (self.stdout, self.stderr))
        return out.decode(), err.decode()


def start(
    module: str,
    *args: str,
    env: Mapping[str, str],
    cwd: Path = REPOSITORY,
    stdin: int = subprocess.PIPE,
    stdout: int = subprocess.PIPE,
    stderr: int | None = subprocess.PIPE,
    new_session: bool = False,
    namespaces: Sequence[int] = (),
) -> WarmProcess:
    """Run a module as `python -m` does, in a fork of the warm process; for tests on Trio.

    Args:
        module: Its name.
        args: Its arguments.
        env: Its whole environment.
        cwd: Its working directory.
        stdin: A descriptor, PIPE or DEVNULL.
        stdout: A descriptor, PIPE or DEVNULL.
        stderr: A descriptor, PIPE, or None for that of this process.
        new_session: Let it lead a session of its own.
        namespaces: Descriptors of namespaces that it enters, in this order.
    """
    request = _Request(
        module=module, args=args, env=dict(env), cwd=str(cwd), new_session=new_session
    )
    pid, ours, ended = _fork(request, (stdin, stdout, 2 if stderr is None else stderr), namespaces)
    streams = (None if fd is None else trio.lowlevel.FdStream(fd) for fd in ours)
    return WarmProcess(pid, ended, *streams)


async def run(
    module: str,
    *args: str,
    env: Mapping[str, str],
    cwd: Path = REPOSITORY,
    stdin: bytes = b"",
    namespaces: Sequence[int] = (),
) -> "subprocess.CompletedProcess[str]":
    """Run a module to its end, as `trio.run_process` does; the arguments are those of `start`."""
    process = start(module, *args, env=env, cwd=cwd, namespaces=namespaces)
    said = {process.stdout: b"", process.stderr: b""}

    async def give() -> None:
        assert process.stdin is not None
        with contextlib.suppress(trio.BrokenResourceError):
            await process.stdin.send_all(stdin)
        await process.stdin.aclose()

    async def take(stream: trio.lowlevel.FdStream | None) -> None:
        assert stream is not None
        async with stream:
            async for chunk in stream:
                said[stream] += chunk

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(give)
            for stream in said:
                nursery.start_soon(take, stream)
            await process.wait()
    finally:
        process.kill()
    out, err = (text.decode() for text in said.values())
    return subprocess.CompletedProcess([module, *args], await process.wait(), out, err)


def begin(
    module: str,
    *args: str,
    env: Mapping[str, str],
    cwd: Path = REPOSITORY,
    stdin: int = subprocess.DEVNULL,
    stdout: int = subprocess.PIPE,
    stderr: int = subprocess.PIPE,
    program: Path | None = None,
    ignoring: Sequence[signal.Signals] = (),
    namespaces: Sequence[int] = (),
) -> WarmProgram:
    """Run a module as `python -m` does, in a fork of the warm process; for tests without Trio.

    Args:
        module: Its name.
        args: Its arguments.
        env: Its whole environment.
        cwd: Its working directory.
        stdin: A descriptor, PIPE or DEVNULL.
        stdout: A descriptor, PIPE or DEVNULL.
        stderr: A descriptor, PIPE or DEVNULL.
        program: Run `main` of the package's `__main__`, as an installed script of this name does.
        ignoring: Signals that it ignores from the start.
        namespaces: Descriptors of namespaces that it enters, in this order.
    """
    request = _Request(
        module=module,
        args=args,
        env=dict(env),
        cwd=str(cwd),
        program="" if program is None else str(program),
        ignoring=[int(signum) for signum in ignoring],
    )
    pid, ours, ended = _fork(request, (stdin, stdout, stderr), namespaces)
    for fd in filter(None, ours):
        os.set_blocking(fd, True)
    modes = zip(ours, ("wb", "rb", "rb"), strict=True)
    files = (None if fd is None else os.fdopen(fd, mode) for fd, mode in modes)
    return WarmProgram(pid, ended, *files)


class _Request(TypedDict, total=False):
    """What to run; the streams come with it."""

    module: str
    args: Sequence[str]
    env: dict[str, str]
    cwd: str
    new_session: bool
    program: str
    ignoring: Sequence[int]


def _fork(
    request: _Request, wanted: Sequence[int], namespaces: Sequence[int] = ()
) -> tuple[int, list[int | None], int]:
    """Return the pid, our ends of the pipes, and the end that tells when the program has ended."""
    with contextlib.ExitStack() as theirs:

        def pipe(*, to_child: bool) -> tuple[int, int]:
            reader, writer = os.pipe()
            our_end, their_end = (writer, reader) if to_child else (reader, writer)
            theirs.callback(os.close, their_end)
            os.set_blocking(our_end, False)
            return our_end, their_end

        def stream(wanted: int, *, to_child: bool) -> tuple[int | None, int]:
            if wanted == subprocess.PIPE:
                return pipe(to_child=to_child)
            if wanted == subprocess.DEVNULL:
                return None, theirs.enter_context(open(os.devnull, "r+b")).fileno()
            return None, wanted

        streams = [stream(each, to_child=number == 0) for number, each in enumerate(wanted)]
        ended, their_ended = pipe(to_child=False)
        payload = json.dumps(request).encode()
        sock = _warm_python()
        fds = [*(end for _, end in streams), their_ended, *namespaces]
        socket.send_fds(sock, [_LENGTH.pack(len(payload))], fds)
        sock.sendall(payload)
        (pid,) = _LENGTH.unpack(sock.recv(_LENGTH.size, socket.MSG_WAITALL))
    return pid, [ours for ours, _ in streams], ended


@functools.cache
def _warm_python() -> socket.socket:
    """Start the warm process, and return our end of its socket."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.warm", str(theirs.fileno())],
            cwd=REPOSITORY,
            env={"PATH": "/usr/bin:/bin", MARK: _NO_TOKEN},
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
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
                header, fds, _, _ = socket.recv_fds(sock, _LENGTH.size, 8)
                if not header:
                    return
                (length,) = _LENGTH.unpack(header)
                payload = sock.recv(length, socket.MSG_WAITALL)
                pid = os.fork()
                if pid == 0:
                    _be_program(json.loads(payload), fds[:3], namespaces=fds[4:])
                ends[pid] = fds.pop(3)
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


def _be_program(request: _Request, streams: Sequence[int], namespaces: Sequence[int]) -> NoReturn:
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for signum in request.get("ignoring", ()):
            signal.signal(signum, signal.SIG_IGN)
        if request.get("new_session"):
            os.setsid()
        for fd in namespaces:
            if _libc.setns(fd, 0) != 0:
                raise OSError(ctypes.get_errno(), "setns")
        for number, fd in enumerate(streams):
            os.dup2(fd, number)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        _open_standard_streams()
        os.chdir(request["cwd"])
        environ = request["env"]
        if MARK in environ:
            _show_in_proc(environ[MARK])
        os.environ.clear()
        os.environ.update(environ)
        sys.argv = [request.get("program", ""), *request["args"]]
        if sys.argv[0]:
            importlib.import_module(f"{request['module']}.__main__").main()
        else:
            runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except Exception:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(status)


def _open_standard_streams() -> None:
    """Open the standard streams anew: whether they are terminals decides how they are buffered."""
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        before = getattr(sys, name)
        file = os.fdopen(
            fd,
            "w" if fd else "r",
            buffering=1 if name == "stderr" else -1,
            encoding=before.encoding,
            errors=before.errors,
            closefd=False,
        )
        setattr(sys, name, file)
        setattr(sys, f"__{name}__", file)


if __name__ == "__main__":
    import gc
    import pkgutil

    import agent_dispatch
    from agent_dispatch.preload import preload_modules

    for found in pkgutil.walk_packages(agent_dispatch.__path__, "agent_dispatch."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
    importlib.import_module("tests.server.fake_service")
    preload_modules()

    # Forked processes share the pages of what exists now.
    gc.collect()
    gc.freeze()
    _serve(socket.socket(fileno=int(sys.argv[1])))
