"""Check values of the command line; the error names the values that are allowed.

The MCP tools clamp such numbers instead, because their caller is a model.
"""

from collections.abc import Iterable

from agent_dispatch.cli.errors import MisuseError
from agent_dispatch.core.request.timeout import MAX_TIMEOUT_S, MIN_TIMEOUT_S
from agent_dispatch.errors import InvalidRequestError, quoted
from agent_dispatch.model.config import PERMISSION_MODES
from agent_dispatch.model.names import did_you_mean

MAX_AGENT_TIMEOUT_S = 86_400
MAX_BUDGET_USD = 1_000_000


def check_range(option: str, value: float, fewest: float, most: float, also: str = "") -> None:
    """Refuse a number outside a range.

    Args:
        option: As it is written.
        value: Its value.
        fewest: The least that is allowed.
        most: The most that is allowed.
        also: What else may be given, for the end of the sentence.
    """
    if not fewest <= value <= most:
        raise MisuseError(
            f"{option} is {value:.15g}, but must be from {fewest:g} to {most:.15g}{also}."
        )


def check_choice(option: str, value: str, choices: Iterable[str]) -> None:
    """Refuse a word that is not one of the choices."""
    known = list(choices)
    if value not in known:
        raise MisuseError(
            f"{option} cannot be {quoted(value)}.{did_you_mean(value, known)}"
            f" It takes: {', '.join(known)}."
        )


def check_call_timeout(seconds: float) -> None:
    """Refuse a timeout of one call that is out of range; 0 and less keep their meaning."""
    if not seconds <= 0:
        check_range("--timeout-seconds", seconds, MIN_TIMEOUT_S, MAX_TIMEOUT_S, ", or 0")


def check_agent(
    timeout: float, max_budget_usd: float, permission_mode: str, *, is_new: bool
) -> None:
    """Refuse values that no agent can have; 0 and `none` keep their meaning.

    Args:
        timeout: Seconds.
        max_budget_usd: US dollars.
        permission_mode: The mode.
        is_new: A negative number clears a field, so a new agent cannot have one.
    """
    also = ", or 0" if is_new else ", 0, or negative"
    for option, number, fewest, most in (
        ("--timeout", timeout, 1, MAX_AGENT_TIMEOUT_S),
        ("--max-budget-usd", max_budget_usd, 0, MAX_BUDGET_USD),
    ):
        if number != 0 and (is_new or not number < 0):
            check_range(option, number, fewest, most, also)
    mode = permission_mode.strip()
    if mode and mode.casefold() != "none":
        check_choice("--permission-mode", mode, PERMISSION_MODES)


def since_time(text: str, now: float) -> float:
    """Return the time that `--since` means; it and `now` are in seconds since the epoch."""
    # Only two commands need it, and `list` imports this module too.
    from agent_dispatch.core.money.stats import begin_of

    try:
        return begin_of(text, now)
    except InvalidRequestError as error:
        raise MisuseError(str(error)) from error
