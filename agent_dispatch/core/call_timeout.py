"""The timeout that a call may bring with it."""

MIN_TIMEOUT_S, MAX_TIMEOUT_S = 10, 7200
"""What it is brought into."""


def clamped_timeout_s(timeout_s: float) -> float:
    """Bring the timeout of one call into its range; None stays None."""
    return float(min(max(timeout_s, MIN_TIMEOUT_S), MAX_TIMEOUT_S))


def call_timeout_s(timeout_seconds: float) -> float | None:
    """Return the timeout that a caller wrote, in its range; None for 0, the agent's own."""
    return clamped_timeout_s(timeout_seconds) if timeout_seconds else None
