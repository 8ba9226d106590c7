"""The entry point: it chooses server, stub or command line before it imports anything heavy."""

import os
import sys

from agent_dispatch import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    # Not even `collections.abc` is imported for `--version`.
    from collections.abc import Sequence

_FAILED, _INTERRUPTED, _READER_GONE = 1, 130, 141


def main() -> None:
    """Run the program; never returns.

    It exits without the interpreter's own cleanup, which would take a good part of a short
    command's time. The answer is flushed, and each process of a dispatch has its guard.
    """
    _open_missing_streams()
    if os.getpid() == 1:
        from agent_dispatch.claude.process_1 import leave_process_1

        leave_process_1()
    try:
        status = _flushed(_run(sys.argv[1:]))
    except KeyboardInterrupt:
        status = _INTERRUPTED
    except BrokenPipeError:
        # `agent-dispatch list | head -1`: nobody is left to read an error.
        status = _READER_GONE
    os._exit(status)


def _run(argv: list[str]) -> int:
    if argv[:1] in (["--version"], ["-V"], ["version"]):
        sys.stdout.write(f"agent-dispatch {__version__}\n")
        return 0
    if argv[:1] == ["serve"]:
        return _serve(argv[1:])
    if argv[:1] == ["_remote"]:
        from agent_dispatch.cli.remote_stub import run_stub

        return run_stub(argv[1:], os.environ)
    from agent_dispatch.cli.app import run_cli
    from agent_dispatch.cli.shell import this_shell

    return run_cli(argv, this_shell(_serve))


def _serve(argv: "Sequence[str]") -> int:
    from agent_dispatch.server.serve import serve

    return serve(argv)


def _flushed(status: int) -> int:
    remark = ""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        status = _FAILED
        remark = f"error: The answer could not be written: {error.strerror}\n"
    _say(remark)
    return status


def _say(text: str) -> None:
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError:
        # The exit status says whether the answer was written.
        return


def _open_missing_streams() -> None:
    """Point closed standard streams at the null device.

    Otherwise the first file that is opened gets their number, and output is written into it.
    """
    if None not in (sys.stdin, sys.stdout, sys.stderr):
        return
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdin = sys.stdin or os.fdopen(0)
    sys.stdout = sys.stdout or os.fdopen(1, "w")
    sys.stderr = sys.stderr or os.fdopen(2, "w")


if __name__ == "__main__":
    main()
