"""Statistics of runs, added up from the lines of the ledger."""

import math
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime
from datetime import time as clock_time
from enum import StrEnum

import msgspec
from msgspec import UNSET

from agent_dispatch.errors import InvalidRequestError, quoted
from agent_dispatch.model.dispatch import COST_DECIMALS
from agent_dispatch.model.ledger import LedgerLine

_PERIOD = re.compile(r"(\d{1,6}(?:\.\d{1,3})?)([hdw])")
_UNIT_S = {"h": 3_600, "d": 86_400, "w": 604_800}
_FEWEST_RUNS = 3
"""With fewer runs no timeout is suggested."""
_TIMEOUT_STEP_S = 30
_SECOND_DECIMALS = 3

_Run = tuple[LedgerLine, float | None]
"""A line of the ledger, and the part of its cost that counts in a group."""


class By(StrEnum):
    """How runs are grouped."""

    AGENT = "agent"
    DAY = "day"
    CALLER = "caller"
    MODEL = "model"


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """The runs of one group."""

    name: str | None
    """None: not known, or there is none."""
    runs: int
    failures: dict[str, int]
    """By error type, the most frequent first."""
    cost_usd: float | None
    """The sum of the known costs; None if none is known."""
    p50_seconds: float | None
    """None if no duration is known."""
    p90_seconds: float | None
    denied: int
    """Tool calls."""

    @property
    def failed(self) -> int:
        """The number of runs that did not succeed."""
        return sum(self.failures.values())

    @property
    def suggested_timeout_s(self) -> int | None:
        """Twice the 90th percentile; None with too few runs."""
        if self.p90_seconds is None or self.runs < _FEWEST_RUNS:
            return None
        return max(1, math.ceil(2 * self.p90_seconds / _TIMEOUT_STEP_S)) * _TIMEOUT_STEP_S

    def as_answer(self, by: By) -> dict[str, object]:
        """Return the row as `stats --json` prints it."""
        return {
            by.value: self.name,
            "runs": self.runs,
            "failed": self.failed,
            "cost_usd": self.cost_usd,
            "p50_seconds": self.p50_seconds,
            "p90_seconds": self.p90_seconds,
            "denied": self.denied,
        }


def begin_of(since: str, now: float) -> float:
    """Return the moment that `--since` names, in seconds since the epoch.

    Args:
        since: A period such as `7d`, `24h` or `2w`, or a local date such as `2026-11-02`.
        now: Seconds since the epoch.

    Raises:
        InvalidRequestError: It is neither.
    """
    text = since.strip().lower()
    if period := _PERIOD.fullmatch(text):
        return now - float(period[1]) * _UNIT_S[period[2]]
    try:
        return datetime.combine(date.fromisoformat(text), clock_time()).timestamp()
    except (ValueError, OverflowError, OSError):
        raise InvalidRequestError(
            f"Not a time: {quoted(since)}. Give a period such as 7d or 24h, or a date such as"
            f" {datetime.fromtimestamp(now, UTC).astimezone():%Y-%m-%d}."
        ) from None


def rows(lines: Iterable[LedgerLine], by: By) -> list[Row]:
    """Add up the runs of each group, in the order of their names."""
    groups: dict[str | None, list[_Run]] = {}
    for line in lines:
        for name, cost_usd in _groups_of(line, by):
            groups.setdefault(name, []).append((line, cost_usd))
    named = sorted(groups.items(), key=lambda item: (item[0] is None, item[0] or ""))
    return [_row(name, runs) for name, runs in named]


def total(lines: Iterable[LedgerLine]) -> Row:
    """Add up all runs."""
    return _row(None, [(line, line.cost_usd) for line in lines])


def _row(name: str | None, runs: Sequence[_Run]) -> Row:
    lines = [line for line, _ in runs]
    failures = Counter(line.error_type or "unknown" for line in lines if not line.success)
    costs = [cost_usd for _, cost_usd in runs if cost_usd is not None]
    durations = sorted(line.duration_ms for line in lines if line.duration_ms is not None)
    return Row(
        name=name,
        runs=len(lines),
        failures=dict(failures.most_common()),
        cost_usd=round(math.fsum(costs), COST_DECIMALS) if costs else None,
        p50_seconds=_percentile(durations, 50),
        p90_seconds=_percentile(durations, 90),
        denied=sum(line.denied for line in lines if line.denied is not UNSET),
    )


def _groups_of(line: LedgerLine, by: By) -> Iterator[tuple[str | None, float | None]]:
    """Yield the groups that a run belongs to, and its cost in each."""
    match by:
        case By.AGENT:
            yield line.agent, line.cost_usd
        case By.DAY:
            yield time.strftime("%Y-%m-%d", time.localtime(line.at)), line.cost_usd
        case By.CALLER:
            yield line.caller, line.cost_usd
        case By.MODEL if not line.model_usage:
            yield None, line.cost_usd
        case By.MODEL:
            for name, used in (line.model_usage or {}).items():
                yield name, used.cost_usd


def _percentile(durations_ms: list[int], percent: int) -> float | None:
    """Return the duration, in seconds, that this percentage of the runs does not exceed."""
    if not durations_ms:
        return None
    rank = math.ceil(len(durations_ms) * percent / 100)
    return round(durations_ms[rank - 1] / 1000, _SECOND_DECIMALS)
