"""Short calls of the `claude` program, and what its own files say about us.

Measured with Claude Code 2.1.330: `claude mcp` keeps user-scope servers under `mcpServers` of
`.claude.json`, in the home directory or in `$CLAUDE_CONFIG_DIR`; a `.config.json` in the
configuration directory is read instead where an old version left one. `claude mcp get` shows
neither `alwaysLoad` nor the border between a command and its arguments, and it starts the server.
So we read the file, and let `claude` write it.
"""

import os
import selectors
import shlex
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence

import msgspec

from agent_dispatch.claude.find_claude import is_on_path
from agent_dispatch.cli.setup.registration import SERVER_NAME
from agent_dispatch.config.project.claude_settings import (
    claude_config_path,
    read_object,
    user_settings_files,
)
from agent_dispatch.core.outcome.report import StartFailure
from agent_dispatch.errors import NOT_JSON, DispatchError

INSTALL_COMMAND = "npm install -g @anthropic-ai/claude-code"

_MAX_OUTPUT_BYTES = 64 * 1024
_TICK_S = 0.05


class ClaudeConfigError(DispatchError):
    """Claude Code's own configuration file cannot be read."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What `claude` answered."""

    exit_status: int | None
    """None: it could not be started, or was killed for taking too long."""
    stdout: str = ""
    stderr: str = ""
    problem: str | None = None
    """Why there is no exit status."""

    def complaint(self) -> str:
        """Why the call failed, in one text."""
        silence = f"it ended with status {self.exit_status} and printed nothing"
        return self.problem or self.stderr.strip() or self.stdout.strip() or silence


def claude_word(program: str, environ: Mapping[str, str]) -> str:
    """How shell commands name the absolute `program`: `claude` if PATH has it."""
    return "claude" if is_on_path(program, environ) else program


def add_to_path(program: str) -> str:
    """The shell command that puts the folder of the absolute `program` on PATH."""
    return f'export PATH={shlex.quote(os.path.dirname(program))}:"$PATH"'


def fix_command(failure: StartFailure) -> str:
    """The shell command that makes `claude` usable."""
    if failure.file is not None:
        return f"chmod +x {shlex.quote(failure.file)}"
    return INSTALL_COMMAND


def ask_claude(
    claude: str, arguments: Sequence[str], environ: Mapping[str, str], *, timeout_s: float
) -> Answer:
    """Run `claude` with an empty stdin and return its answer.

    It runs in `/`, so that no project's settings apply. After `timeout_s` it is killed with its
    process group. At most 64 KiB of each stream are kept.
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
    """Read both streams to their ends, or until `claude` has exited and they fall silent."""
    kept = {process.stdout: bytearray(), process.stderr: bytearray()}
    with selectors.DefaultSelector() as selector:
        for stream in kept:
            assert stream is not None
            selector.register(stream, selectors.EVENT_READ, kept[stream])
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


def read_claude_config(environ: Mapping[str, str]) -> dict[str, object]:
    """Claude Code's configuration file; empty if there is none yet.

    Raises:
        ClaudeConfigError: It cannot be read, or is not a JSON object.
    """
    path = claude_config_path(environ)
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, object])
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ClaudeConfigError(f"{path} cannot be read: {error.strerror}") from error
    except NOT_JSON as error:
        raise ClaudeConfigError(
            f"{path} is not a JSON object ({error}). Claude Code keeps backups of it in"
            f" {path.parent / '.claude' / 'backups'}; restore one, or run `claude`, which says how"
        ) from error


def enabled_plugin(environ: Mapping[str, str]) -> str | None:
    """Our plugin, if it is enabled for all sessions, as `NAME@MARKETPLACE`."""
    for file in user_settings_files(environ):
        plugins = read_object(file).get("enabledPlugins")
        for name, enabled in plugins.items() if isinstance(plugins, dict) else ():
            if enabled is True and name.partition("@")[0] == SERVER_NAME:
                return str(name)
    return None
