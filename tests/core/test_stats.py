import time
from typing import Any

import pytest

from agent_dispatch.core.money.stats import By, begin_of, rows, total
from agent_dispatch.errors import InvalidRequestError
from agent_dispatch.model.ledger import LedgerLine, ModelCost

NOW = 1_795_351_976.0


def line(agent: str = "infra", **more: Any) -> LedgerLine:
    fields: dict[str, Any] = {"at": NOW, "job_id": "0" * 32, "agent": agent, "success": True}
    return LedgerLine(**fields | more)


def test_runs_are_added_up_by_agent() -> None:
    lines = [line(cost_usd=0.01 * n, duration_ms=1000 * n) for n in range(1, 11)]
    lines += [line(success=False, error_type="timeout"), line("docs", denied=3, cost_usd=0.5)]
    docs, infra = rows(lines, By.AGENT)
    assert infra.as_answer(By.AGENT) == {
        "agent": "infra",
        "runs": 11,
        "failed": 1,
        "cost_usd": 0.55,
        "p50_seconds": 5.0,
        "p90_seconds": 9.0,
        "denied": 0,
    }
    assert next(iter(infra.as_answer(By.AGENT))) == "agent"
    assert infra.failures == {"timeout": 1}
    assert infra.suggested_timeout_s == 30
    assert (docs.denied, docs.p50_seconds, docs.suggested_timeout_s) == (3, None, None)
    everything = total(lines)
    assert (everything.runs, everything.cost_usd) == (12, 1.05)


def test_a_sum_without_a_known_cost_is_not_known() -> None:
    (row,) = rows([line(), line()], By.AGENT)
    assert row.cost_usd is None


def test_a_run_of_several_models_counts_in_each_with_its_share() -> None:
    both = {"opus": ModelCost(cost_usd=0.3), "haiku": ModelCost(cost_usd=0.01)}
    lines = [line(cost_usd=0.31, model_usage=both), line(cost_usd=None)]
    found = {row.name: (row.runs, row.cost_usd) for row in rows(lines, By.MODEL)}
    assert found == {"haiku": (1, 0.01), "opus": (1, 0.3), None: (1, None)}


def test_days_are_local_and_callers_may_be_absent() -> None:
    lines = [line(), line(at=NOW - 86_400), line(caller="frontend")]
    today, before = (time.strftime("%Y-%m-%d", time.localtime(at)) for at in (NOW, NOW - 86_400))
    assert [(row.name, row.runs) for row in rows(lines, By.DAY)] == [(before, 1), (today, 2)]
    assert [(row.name, row.runs) for row in rows(lines, By.CALLER)] == [("frontend", 1), (None, 2)]


@pytest.mark.parametrize(
    ("since", "ago_s"), [("7d", 604_800), ("24h", 86_400), (" 1.5D ", 129_600)]
)
def test_since_takes_a_period(since: str, ago_s: float) -> None:
    assert begin_of(since, NOW) == NOW - ago_s


def test_since_takes_a_local_date() -> None:
    assert time.localtime(begin_of("2026-11-02", NOW))[:6] == (2026, 11, 2, 0, 0, 0)


@pytest.mark.parametrize("since", ["", "7", "d", "yesterday", "-1d", "2026-13-01", "7d 3h", "1e9d"])
def test_since_refuses_anything_else(since: str) -> None:
    with pytest.raises(InvalidRequestError, match="7d or 24h"):
        begin_of(since, NOW)
