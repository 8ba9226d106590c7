import re
import time
from datetime import datetime

import pytest

from agent_dispatch.core.money.ceilings import (
    Purse,
    Spending,
    booked_usd,
    cap_usd,
    midnight,
    nearly_spent,
    next_midnight,
    refusal,
)
from agent_dispatch.model.config import Settings

NOW = 1_795_351_976.0


def spending(
    day: tuple[float, float] = (0, 0), tree: tuple[float, float] = (0, 0), runs: int = 0
) -> Spending:
    return Spending(
        day=Purse(spent_usd=day[0], booked_usd=day[1]),
        tree=Purse(spent_usd=tree[0], booked_usd=tree[1]),
        tree_runs=runs,
    )


@pytest.mark.parametrize(
    ("own", "settings", "cap", "booked"),
    [
        (None, Settings(), None, 0),
        (2.0, Settings(), 2.0, 0),
        (None, Settings(max_cost_per_day_usd=5, max_cost_per_tree_usd=1), 0.1, 0.1),
        (0.0, Settings(max_cost_per_day_usd=5), 0.5, 0.5),
        (2.0, Settings(max_cost_per_day_usd=5), 2.0, 2.0),
        (None, Settings(max_runs_per_tree=3), None, 0),
    ],
)
def test_a_run_books_its_cap_or_a_tenth_of_the_tightest_ceiling(
    own: float | None, settings: Settings, cap: float | None, booked: float
) -> None:
    assert cap_usd(own, settings) == cap
    assert booked_usd(cap, settings) == booked


def test_a_run_may_start_if_its_cap_fits_to_the_cent() -> None:
    settings = Settings(max_cost_per_day_usd=1, max_cost_per_tree_usd=1, max_runs_per_tree=20)
    tenths = 9 * 0.1
    just_fits = spending(day=(0.1 + 0.2, tenths - 0.3), tree=(0.0, tenths), runs=19)
    assert refusal([0.1], just_fits, settings, NOW) is None
    assert refusal([0.1001], just_fits, settings, NOW) is not None


def test_the_refusal_of_a_day_names_figure_setting_and_the_next_midnight() -> None:
    settings = Settings(max_cost_per_day_usd=1)
    said = refusal([0.25], spending(day=(0.8, 0.05)), settings, NOW) or ""
    for part in ("max_cost_per_day_usd is $1", "$0.8 is spent today", "$0.05 booked", "$0.25"):
        assert part in said
    found = re.search(r"at (\d{4}-\d\d-\d\dT00:00:00[+-]\d\d:\d\d)", said)
    assert found is not None
    assert datetime.fromisoformat(found[1]).timestamp() > NOW


def test_the_refusal_of_a_tree_says_whether_running_runs_may_free_it() -> None:
    settings = Settings(max_cost_per_tree_usd=1)
    waits = refusal([0.3], spending(tree=(0.6, 0.3)), settings, NOW) or ""
    assert "max_cost_per_tree_usd is $1" in waits
    assert "becomes free as runs of the tree end" in waits
    never = refusal([0.3], spending(tree=(0.8, 0.1)), settings, NOW) or ""
    assert "does not become free" in never


def test_each_ceiling_that_is_in_the_way_is_named() -> None:
    settings = Settings(max_cost_per_day_usd=1, max_cost_per_tree_usd=2, max_runs_per_tree=1)
    said = refusal([0.5], spending(day=(0.9, 0), tree=(1.9, 0), runs=1), settings, NOW) or ""
    for setting in ("max_cost_per_day_usd", "max_cost_per_tree_usd", "max_runs_per_tree"):
        assert said.count(f"{setting} is ") == 1


def test_a_cap_above_the_ceiling_itself_is_said_never_to_fit() -> None:
    said = refusal([1.5], spending(), Settings(max_cost_per_day_usd=1), NOW) or ""
    assert "does not fit even then" in said


def test_the_number_of_runs_in_a_tree_is_a_ceiling() -> None:
    settings = Settings(max_runs_per_tree=3)
    assert refusal([0.0], spending(runs=2), settings, NOW) is None
    said = refusal([0.0, 0.0], spending(runs=2), settings, NOW) or ""
    assert "max_runs_per_tree is 3, and 2 run(s) were started" in said
    assert "needs 2 more" in said


def test_the_run_that_reaches_eighty_percent_reports_the_ceiling() -> None:
    settings = Settings(max_cost_per_day_usd=1, max_cost_per_tree_usd=2, max_runs_per_tree=5)
    before = spending(day=(0.75, 0), tree=(0.75, 0), runs=3)
    after = spending(day=(0.85, 0), tree=(0.85, 0), runs=4)
    assert nearly_spent(before, after, settings) == [
        "max_cost_per_day_usd: 85% is spent, $0.85 of $1.",
        "max_runs_per_tree: 80% is spent, 4 of 5.",
    ]
    later = spending(day=(0.9, 0), tree=(0.9, 0), runs=4)
    assert nearly_spent(after, later, settings) == []


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kathmandu", "America/Santiago"])
def test_days_are_local(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        for hour in range(0, 24 * 400, 7):
            now = NOW + hour * 3600
            begin, end = midnight(now), next_midnight(now).timestamp()
            assert begin <= now < end
            assert time.localtime(begin)[:3] == time.localtime(now)[:3]
            assert time.localtime(end - 1)[:3] == time.localtime(now)[:3]
            assert 22 * 3600 <= end - begin <= 26 * 3600
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()
