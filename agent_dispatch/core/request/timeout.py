"""The timeout that a call may have."""

import math

from agent_dispatch.errors import InvalidRequestError

MIN_TIMEOUT_S, MAX_TIMEOUT_S = 10, 7200
"""The range of the timeout of one call, in seconds."""


def clamped_timeout_s(timeout_s: float) -> float:
    """Return the timeout of one call, clamped to its range."""
    return float(min(max(timeout_s, MIN_TIMEOUT_S), MAX_TIMEOUT_S))


def call_timeout_s(timeout_seconds: float) -> float | None:
    """Return the timeout in a call, clamped to its range; None for 0, the agent's own timeout."""
    return clamped_timeout_s(timeout_seconds) if timeout_seconds else None


def check_timeout(timeout_s: float | None) -> None:
    """Check that the timeout of one call is a number of seconds; it is clamped later.

    Raises:
        InvalidRequestError: It is not.
    """
    if timeout_s is not None and not 0 < timeout_s < math.inf:
        raise InvalidRequestError(
            f"The timeout must be a number of seconds above 0, not {timeout_s}."
        )
