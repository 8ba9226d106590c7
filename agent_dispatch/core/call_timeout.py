"""The timeout that a call may bring with it."""

MIN_TIMEOUT_S, MAX_TIMEOUT_S = 10, 7200
"""The range of the timeout of one call, in seconds."""


def clamped_timeout_s(timeout_s: float) -> float:
    """Return the timeout of one call, brought into its range."""
    return float(min(max(timeout_s, MIN_TIMEOUT_S), MAX_TIMEOUT_S))


def call_timeout_s(timeout_seconds: float) -> float | None:
    """Return the timeout that a caller wrote, in its range; None for 0, the agent's own."""
    return clamped_timeout_s(timeout_seconds) if timeout_seconds else None
