import json
import os
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent_dispatch.cli.output import cell_width
from agent_dispatch.model.ledger import AccountLimits, LedgerLine, LimitWindow, ModelCost
from tests.cli.support import World


def line(agent: str = "infra", **more: Any) -> LedgerLine:
    fields: dict[str, Any] = {
        "at": time.time() - 60,
        "job_id": "0" * 32,
        "agent": agent,
        "success": True,
        "cost_usd": 0.25,
        "duration_ms": 4000,
    }
    return LedgerLine(**fields | more)


@pytest.fixture
def folder(world: World) -> Path:
    return world.config.parent / "jobs" / "ledger"


def write(folder: Path, *lines: LedgerLine) -> None:
    (folder / "open").mkdir(parents=True, exist_ok=True)
    for each in lines:
        month = time.strftime("%Y-%m", time.localtime(each.at))
        with (folder / f"{month}.jsonl").open("ab") as file:
            file.write(msgspec.json.encode(each) + b"\n")


def test_without_runs_there_is_nothing_to_show(world: World) -> None:
    assert world.run("stats") == 0
    assert world.out.startswith("No runs since ")
    assert world.run("stats", "--json") == 0
    assert world.answer() == []


def test_the_json_is_an_array_named_after_the_grouping(world: World, folder: Path) -> None:
    usage = {"opus": ModelCost(cost_usd=0.25)}
    write(folder, line(model_usage=usage), line("docs", success=False, error_type="timeout"))
    write(folder, line(at=time.time() - 8 * 86_400))
    assert world.run("stats", "--json") == 0
    assert world.answer() == [
        {
            "agent": name,
            "runs": 1,
            "failed": failed,
            "cost_usd": 0.25,
            "p50_seconds": 4.0,
            "p90_seconds": 4.0,
            "denied": 0,
        }
        for name, failed in (("docs", 1), ("infra", 0))
    ]
    for by, names in (
        ("day", [time.strftime("%Y-%m-%d", time.localtime(time.time() - 60))]),
        ("caller", [None]),
        ("model", ["opus", None]),
    ):
        assert world.run("stats", "--by", by, "--json") == 0
        assert [row[by] for row in world.answer()] == names
        assert all(next(iter(row)) == by for row in world.answer())
    assert world.run("stats", "--since", "30d", "--json") == 0
    assert {row["agent"]: row["runs"] for row in world.answer()} == {"docs": 1, "infra": 2}


def test_the_text_names_failures_a_timeout_and_the_account(world: World, folder: Path) -> None:
    write(folder, *[line() for _ in range(5)], line("docs", success=False, error_type="timeout"))
    limits = AccountLimits(
        at=time.time() - 120,
        status="allowed",
        windows=[LimitWindow(name="five_hour", used=0.92, resets_at=time.time() + 60)],
    )
    (folder / "account.json").write_bytes(msgspec.json.encode(limits))
    assert world.run("stats") == 0
    headings, docs, infra, everything, *rest = world.out.splitlines()
    assert headings.split() == [
        "AGENT",
        "RUNS",
        "FAILED",
        "COST",
        "P50",
        "P90",
        "DENIED",
        "TIMEOUT",
    ]
    assert docs.split() == ["docs", "1", "1", "$0.25", "4.0", "s", "4.0", "s", "0", "-"]
    assert infra.split() == ["infra", "5", "0", "$1.25", "4.0", "s", "4.0", "s", "0", "30"]
    assert everything.split()[:2] == ["all", "6"]
    assert "1 failure: 1 timeout" in rest
    assert "Account: 92% of the limit five_hour in use" in world.out
    assert "as of 2 min ago" in world.out
    world.run("doctor")
    assert "account: 92% of the limit five_hour in use" in world.out


@pytest.mark.parametrize("arguments", [["--by", "week"], ["--since", "soon"]])
def test_a_wrong_value_is_refused_with_those_that_work(world: World, arguments: list[str]) -> None:
    assert world.run("stats", *arguments) == 2
    assert "agent, day, caller, model" in world.err or "7d or 24h" in world.err


def test_the_table_fits_the_terminal(world: World, folder: Path) -> None:
    write(folder, *[line("a-long-name-of-an-agent-" * 3, model_usage=None) for _ in range(3)])
    world.environ["COLUMNS"] = "72"
    assert world.run("stats") == 0
    assert max(map(cell_width, world.out.splitlines()[:2])) <= 72


def test_the_booking_of_a_killed_run_is_entered(world: World, folder: Path) -> None:
    write(folder)
    job_id = "0190a7b0c1d27abc8def0123456789ab"
    booking = line(job_id=job_id, success=False, error_type="lost", cost_usd=None, booked_usd=0.5)
    (folder / "open" / f"{job_id}.0.json").write_bytes(msgspec.json.encode(booking))
    assert world.run("stats", "--json") == 0
    (row,) = world.answer()
    assert (row["runs"], row["failed"], row["cost_usd"]) == (1, 1, None)
    assert os.listdir(folder / "open") == []
    (text,) = next(folder.glob("*.jsonl")).read_text().splitlines()
    assert json.loads(text)["cost_usd"] is None
