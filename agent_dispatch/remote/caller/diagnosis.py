"""Decides why an attempt to open a link failed, and whether another attempt may help."""

from typing import NamedTuple

import agent_dispatch
from agent_dispatch.model.config import HostConfig
from agent_dispatch.model.next_step import NextStep, run
from agent_dispatch.remote.caller.ssh import to_try_by_hand
from agent_dispatch.remote.frames import PROTOCOL, Hello
from agent_dispatch.remote.handshake import MISSING

HANDSHAKE_S = 15.0
"""Measured by our own clock: after a cut, ssh may hang and ignore its own time limits."""

_SHOWN_LINES = 3
_KILLED = 128
"""A larger exit status of a shell or container tool means that a signal ended the command."""

_FINAL = (
    "Host key verification failed",
    "REMOTE HOST IDENTIFICATION HAS CHANGED",
    "Permission denied",
    "Too many authentication failures",
    "Bad configuration option",
    "Bad owner or permissions",
    "terminating, ",
)
"""Messages of ssh after which another attempt cannot help."""
_FINAL_AT_FIRST = ("Could not resolve hostname",)
"""Final, unless the host was reached before: then the network is down."""
_PASSING = (
    "Connection refused",
    "timed out",
    "No route to host",
    "Network is unreachable",
    "Connection closed",
    "Connection reset",
    "Broken pipe",
    "kex_exchange_identification",
    "ssh_exchange_identification",
    "mux_client",
)
"""Messages of ssh about failures that may pass."""


class Attempt(NamedTuple):
    """How an attempt to open a link failed."""

    start_error: str = ""
    """Why no process could be started."""
    hello: Hello | None = None
    """The greeting of a program that speaks no common protocol."""
    noise: str = ""
    """What was printed instead of a greeting."""
    stderr: str = ""
    timed_out: bool = False
    """There was no greeting within `HANDSHAKE_S`."""
    exit_code: int | None = None
    """None if the guard of the process was killed."""


class Failure(NamedTuple):
    """Why there is no link."""

    reason: str
    is_final: bool
    steps: tuple[NextStep, ...]


def diagnose(attempt: Attempt, name: str, host: HostConfig, *, was_reached: bool) -> Failure:
    """Say why an attempt failed.

    Args:
        attempt: The attempt.
        name: The host's name in the configuration.
        host: Its configuration.
        was_reached: Whether an earlier attempt succeeded.
    """
    try_by_hand = (run(to_try_by_hand(host)),)
    install = (run(f"agent-dispatch hosts install {name}"),)
    if attempt.start_error:
        return Failure(f"{attempt.start_error}.", True, try_by_hand)
    if attempt.hello is not None:
        hello = attempt.hello
        return Failure(
            f"it speaks protocol {hello.proto} (version {hello.version}), and this version"
            f" {agent_dispatch.__version__} speaks {PROTOCOL}.",
            True,
            install,
        )
    if MISSING in attempt.noise:
        missing = host.program or "agent-dispatch"
        return Failure(f"there is no {missing} there.", True, install)
    stderr = [line.strip() for line in attempt.stderr.splitlines() if line.strip()]
    reason = stderr[-_SHOWN_LINES:]
    if attempt.timed_out:
        reason.append(f"it did not greet within {HANDSHAKE_S:g} s.")
    elif not stderr:
        reason.append(f"its command ended with status {attempt.exit_code} without a greeting.")
    if attempt.noise and not stderr:
        reason.append(f"It said: {attempt.noise[-500:]}")
    return Failure("\n".join(reason), _is_final(attempt, was_reached=was_reached), try_by_hand)


def _is_final(attempt: Attempt, *, was_reached: bool) -> bool:
    def says(messages: tuple[str, ...]) -> bool:
        return any(message in attempt.stderr for message in messages)

    if says(_FINAL):
        return True
    if says(_FINAL_AT_FIRST):
        return not was_reached
    status = attempt.exit_code
    if attempt.timed_out or status is None or status < 0 or status > _KILLED:
        return False  # Silent, or killed. ssh exits with 255 after any failure of its own.
    # A container that is restarting is reported by its tool in its own words.
    return not was_reached and not says(_PASSING)
