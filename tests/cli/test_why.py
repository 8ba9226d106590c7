"""What `why` says of jobs; each line is `what: value (where from)`."""

import re
import time
from typing import Any

import msgspec
import pytest

from agent_dispatch.jobs import record
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.model.dispatch import DispatchRequest, DispatchResult, ErrorType
from agent_dispatch.model.job import JobKind
from tests.cli.support import World
from tests.jobs.support import DONE, end

LINE = re.compile(r"[a-z ]+: .+ \(.+\)")


@pytest.fixture
def store(world: World) -> JobStore:
    world.write_config(
        "[settings]\ndefault_timeout = 77\n"
        f'[agents.infra]\ndirectory = "{world.home}"\npermission_mode = "plan"\n'
    )
    return JobStore(world.config.parent / "jobs")


def failed(error_type: ErrorType, **more: Any) -> DispatchResult:
    return DispatchResult(
        agent="infra", success=False, result="", error="No.\nMore.", error_type=error_type, **more
    )


def finished(store: JobStore, result: DispatchResult, **asked: Any) -> str:
    request = DispatchRequest(agent="infra", task="look", **asked)
    claim = store.create(store.new_job(request, kind=JobKind.CALL))
    store.update(claim, record.started(claim.job, time.time() + 12))
    end(store, claim, result)
    return claim.job.id


def test_a_timeout_says_whose_limit_it_was_and_how_long_it_waited(
    world: World, store: JobStore
) -> None:
    job_id = finished(store, failed(ErrorType.TIMEOUT))
    assert world.run("why") == 0
    lines = world.out.splitlines()
    assert lines[0] == f"outcome: failed: timeout (the record of job {job_id[-8:]})"
    assert "slot: waited 12 s for one (max_concurrency of [settings])" in lines
    assert "timeout: 77 s (default_timeout of [settings])" in lines
    assert f"config: {world.config} (XDG_CONFIG_HOME)" in lines
    assert all(LINE.fullmatch(line) for line in lines)
    finished(store, failed(ErrorType.TIMEOUT), timeout_s=20)
    world.run("why")
    assert "timeout: 20 s (timeout_seconds of the call)" in world.out


def test_a_denial_names_what_denied_it(world: World, store: JobStore) -> None:
    denied = msgspec.structs.replace(DONE, denied_tools=["Bash"], hint="Mode plan denied: Bash.\nx")
    finished(store, denied, model="haiku")
    world.run("why", "last")
    assert "denied: Mode plan denied: Bash. (" in world.out
    assert "permission mode: plan (permission_mode of [agents.infra])" in world.out
    assert "model: haiku (the call)" in world.out
    assert "timeout" not in world.out


def test_a_run_that_did_not_fit_names_the_ceilings_and_its_part(
    world: World, store: JobStore
) -> None:
    settings = "[settings]\nmax_cost_per_day_usd = 2\nmax_cost_per_tree_usd = 1.5\n"
    world.write_config(f'{settings}[agents.infra]\ndirectory = "{world.home}"\n')
    claim = store.create(
        store.new_job(DispatchRequest(agent="infra", task="look"), kind=JobKind.CALL)
    )
    end(store, claim, failed(ErrorType.BUDGET))
    world.run("why")
    assert "ceiling: $2.00 (max_cost_per_day_usd of [settings])" in world.out
    assert "ceiling: $1.50 (max_cost_per_tree_usd of [settings])" in world.out
    assert "budget: $0.15 a run (a tenth of the tightest ceiling)" in world.out
    finished(store, failed(ErrorType.BUDGET))
    world.run("why")
    assert "ceiling: " not in world.out
    assert "budget: $0.15 a run" in world.out


def test_a_client_that_gave_the_call_up_is_named(world: World, store: JobStore) -> None:
    claim = store.create(
        store.new_job(DispatchRequest(agent="infra", task="look"), kind=JobKind.CALL)
    )
    left = msgspec.structs.replace(claim.job, ref=True, client_gave_up=True)
    store.update(claim, record.started(left, time.time()))
    world.run("why")
    assert "client timeout: passed before the answer was there" in world.out
    assert "kept: " not in world.out


def test_ten_lines_are_the_most(world: World, store: JobStore) -> None:
    result = failed(
        ErrorType.TIMEOUT, denied_tools=["Bash"], verified=False, hint="h", budget_exceeded=True
    )
    asked: dict[str, Any] = {"model": "m", "effort": "high", "session_id": "s-1", "timeout_s": 20.0}
    job_id = finished(store, result, **asked)
    world.run("why", job_id[-8:])
    assert len(world.out.splitlines()) <= 10
    world.run("why", "--json")
    assert world.answer()[0].keys() == {"what", "value", "where"}


def test_an_agent_that_is_gone_is_what_why_says(world: World, store: JobStore) -> None:
    finished(store, DONE)
    world.write_config("")
    assert world.run("why") == 0
    assert "config: its agent cannot run now: Unknown agent: 'infra'." in world.out
