"""Ceilings on spending: what a run books, whether it may start, and when a ceiling is nearly spent.

A run books its cap before it starts, and counts with its actual cost after it has ended. So runs
that keep to their caps never exceed a ceiling, however many start at once.
"""

from datetime import UTC, date, datetime, time, timedelta

import msgspec

from agent_dispatch.core.next_step import amount
from agent_dispatch.model.config import Settings

_NEARLY = 0.8
_SHARE_OF_CEILING = 10
"""A run without its own cap gets one tenth of the tightest ceiling."""
_ROUNDING_USD = 1e-9
"""Tolerance for sums of binary fractions."""
_NEVER = "It does not become free: only a new call outside of any agent begins a new tree."
_RAISE = "Do the task without another run, or let a person raise the setting in agents.toml."


class Purse(msgspec.Struct, frozen=True, kw_only=True):
    """Spent and booked amounts of a day or a tree."""

    spent_usd: float = 0.0
    """By runs that have ended."""
    booked_usd: float = 0.0
    """By runs under way."""


class Spending(msgspec.Struct, frozen=True, kw_only=True):
    """The amounts that are compared with ceilings."""

    day: Purse = Purse()
    tree: Purse = Purse()
    tree_runs: int = 0
    """Runs of the tree that were started."""


def has_ceiling(settings: Settings) -> bool:
    """Tell whether anything limits spending."""
    return _money_ceilings(settings) != [] or settings.max_runs_per_tree is not None


def cap_usd(own_usd: float | None, settings: Settings) -> float | None:
    """Return the cap of a run whose agent has the cap `own_usd`; None for no limit."""
    ceilings = _money_ceilings(settings)
    return own_usd or (min(ceilings) / _SHARE_OF_CEILING if ceilings else None)


def booked_usd(cap: float | None, settings: Settings) -> float:
    """Return what a run with that cap books."""
    return cap or 0.0 if has_ceiling(settings) else 0.0


def refusal(booked: list[float], spending: Spending, settings: Settings, now: float) -> str | None:
    """Say why runs that book these amounts may not start; None if they may.

    Args:
        booked: US dollars, for each of the runs that start together.
        spending: The spending before them.
        now: Seconds since the epoch.
    """
    wanted_usd, runs = sum(booked), len(booked)
    day, tree = settings.max_cost_per_day_usd, settings.max_cost_per_tree_usd
    reasons = []
    if day is not None and _is_above(wanted_usd, spending.day, day):
        frees = f"The day's ceiling is free again at {next_midnight(now).isoformat()}."
        setting = "max_cost_per_day_usd"
        reasons.append(_no_money(wanted_usd, spending.day, setting, day, "today", frees))
    if tree is not None and _is_above(wanted_usd, spending.tree, tree):
        frees = _NEVER
        if not _is_above(wanted_usd, Purse(spent_usd=spending.tree.spent_usd), tree):
            frees = "It becomes free as runs of the tree end that cost less than they booked."
        setting, where = "max_cost_per_tree_usd", "in this tree of runs"
        reasons.append(_no_money(wanted_usd, spending.tree, setting, tree, where, frees))
    max_runs = settings.max_runs_per_tree
    if max_runs is not None and spending.tree_runs + runs > max_runs:
        more = f"; this needs {runs} more" if runs > 1 else ""
        reasons.append(
            f"max_runs_per_tree is {max_runs}, and {spending.tree_runs} run(s) were started in this"
            f" tree of runs{more}. {_NEVER}"
        )
    return f"Not started: {' '.join(reasons)} {_RAISE}" if reasons else None


def _no_money(
    wanted_usd: float, purse: Purse, setting: str, ceiling: float, where: str, frees: str
) -> str:
    booked = (
        f" and ${amount(purse.booked_usd)} booked by runs under way" if purse.booked_usd else ""
    )
    if _is_above(wanted_usd, Purse(), ceiling):
        frees += " A cap above the ceiling does not fit even then: a smaller max_budget_usd would."
    return (
        f"{setting} is ${amount(ceiling)}; ${amount(purse.spent_usd)} is spent {where}{booked}, so"
        f" a cap of ${amount(wanted_usd)} does not fit. {frees}"
    )


def nearly_spent(before: Spending, after: Spending, settings: Settings) -> list[str]:
    """Return a line for each ceiling that reached 80 % between the two."""
    day, tree = settings.max_cost_per_day_usd, settings.max_cost_per_tree_usd
    table = (
        ("max_cost_per_day_usd", "$", day, before.day.spent_usd, after.day.spent_usd),
        ("max_cost_per_tree_usd", "$", tree, before.tree.spent_usd, after.tree.spent_usd),
        ("max_runs_per_tree", "", settings.max_runs_per_tree, before.tree_runs, after.tree_runs),
    )
    return [
        f"{setting}: {new / ceiling:.0%} is spent, {unit}{amount(new)} of {unit}{amount(ceiling)}."
        for setting, unit, ceiling, old, new in table
        if ceiling is not None and old < _NEARLY * ceiling - _ROUNDING_USD <= new
    ]


def midnight(now: float) -> float:
    """Return when the local day began, in seconds since the epoch."""
    return datetime.combine(_local_day(now), time()).timestamp()


def next_midnight(now: float) -> datetime:
    """Return when the next local day begins, with its offset from UTC."""
    return datetime.combine(_local_day(now) + timedelta(days=1), time()).astimezone()


def _local_day(now: float) -> date:
    return datetime.fromtimestamp(now, UTC).astimezone().date()


def _money_ceilings(settings: Settings) -> list[float]:
    both = (settings.max_cost_per_day_usd, settings.max_cost_per_tree_usd)
    return [ceiling for ceiling in both if ceiling is not None]


def _is_above(wanted_usd: float, purse: Purse, ceiling: float) -> bool:
    return purse.spent_usd + purse.booked_usd + wanted_usd > ceiling + _ROUNDING_USD
