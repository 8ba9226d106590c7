"""Short questions to the `claude` program, and what its configuration file says.

Measured with Claude Code 2.1.330: `claude mcp` keeps user-scope servers under `mcpServers` of
`.claude.json`, in the home directory or in `$CLAUDE_CONFIG_DIR`; a `.config.json` in the
configuration directory is read instead where an old version left one. `claude mcp get` shows
neither `alwaysLoad` nor where a command ends and its arguments begin, and starts the server; so
the file is read, and only `claude` writes it.
"""

import os
import selectors
import shlex
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import IO

import msgspec

from agent_dispatch.config.claude_settings import claude_config_path
from agent_dispatch.core.report import StartFailure, StartStage
from agent_dispatch.errors import DispatchError
from agent_dispatch.run.program import is_on_path

INSTALL_COMMAND = "npm install -g @anthropic-ai/claude-code"

_MAX_OUTPUT_BYTES = 64 * 1024
_TICK_S = 0.05


class ClaudeConfigError(DispatchError):
    """Claude Code's own configuration file cannot be read."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What `claude` said."""

    exit_status: int | None
    """None: it could not be started, or was ended for taking too long."""
    stdout: str = ""
    stderr: str = ""
    problem: str | None = None
    """Why there is no exit status."""

    def complaint(self) -> str:
        """Why it did not do what it was asked to, in one text."""
        return (
            self.problem
            or self.stderr.strip()
            or self.stdout.strip()
            or (f"it ended with status {self.exit_status} and said nothing")
        )


def claude_word(program: str, environ: Mapping[str, str]) -> str:
    """What a command for a shell calls an absolute `program`: its name, where PATH has it."""
    return "claude" if is_on_path(program, environ) else program


def add_to_path(program: str) -> str:
    """The shell command that lets an absolute `program` be found by its name."""
    return f'export PATH={shlex.quote(os.path.dirname(program))}:"$PATH"'


def mending_command(failure: StartFailure) -> str:
    """The shell command that makes `claude` usable."""
    if failure.stage is StartStage.CLI_NOT_EXECUTABLE:
        return f"chmod +x {shlex.quote(failure.text.removesuffix(' is not executable'))}"
    return INSTALL_COMMAND


def how_to_mend(failure: StartFailure) -> str:
    """The same as a sentence."""
    if failure.stage is StartStage.CLI_NOT_EXECUTABLE:
        return f"Make it executable: {mending_command(failure)}"
    return f"Install Claude Code with: {INSTALL_COMMAND}"


def ask_claude(
    claude: str, arguments: Sequence[str], environ: Mapping[str, str], *, timeout_s: float
) -> Answer:
    """Run `claude` with an empty stdin and wait for its answer, but not for ever.

    It runs in `/`, so that no project's settings have a say. If it takes too long it is killed
    with its process group. Output beyond 64 KiB a stream is dropped.
    """
    try:
        process = subprocess.Popen(
            [claude, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            env=dict(environ),
            start_new_session=True,
        )
    except OSError as error:
        return Answer(exit_status=None, problem=f"{claude} cannot be run: {error.strerror}")
    with process:
        deadline = time.monotonic() + timeout_s
        try:
            stdout, stderr = _read_both(process, deadline)
            exit_status = process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            called = " ".join([claude, *arguments[:2]])
            problem = f"{called} did not end within {timeout_s:g} s"
            return Answer(exit_status=None, problem=problem)
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
        return Answer(exit_status=exit_status, stdout=stdout, stderr=stderr)


def _read_both(process: subprocess.Popen[bytes], deadline: float) -> tuple[str, str]:
    """Read both streams to their ends, or until what still holds them has outlived `claude`."""
    kept = {process.stdout: bytearray(), process.stderr: bytearray()}
    with selectors.DefaultSelector() as selector:
        for stream in kept:
            selector.register(_readable(stream), selectors.EVENT_READ, kept[stream])
        while selector.get_map() and time.monotonic() < deadline:
            exited = process.poll() is not None
            ready = selector.select(_TICK_S)
            if exited and not ready:
                break
            for key, _ in ready:
                chunk = os.read(key.fd, _MAX_OUTPUT_BYTES)
                if not chunk:
                    selector.unregister(key.fileobj)
                key.data.extend(chunk[: _MAX_OUTPUT_BYTES - len(key.data)])
    stdout, stderr = (bytes(data).decode(errors="replace") for data in kept.values())
    return stdout, stderr


def _readable(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream


def read_claude_config(environ: Mapping[str, str]) -> dict[str, object]:
    """Claude Code's configuration file; empty if there is none yet.

    Raises:
        ClaudeConfigError: It cannot be read or is no JSON object.
    """
    path = claude_config_path(environ)
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, object])
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ClaudeConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ClaudeConfigError(
            f"{path} is not a JSON object ({error}). Claude Code keeps backups of it in"
            f" {path.parent / '.claude' / 'backups'}; restore one, or run `claude` to be told how"
        ) from error
