import json

import msgspec
import pytest

from agent_dispatch.model.dispatch import ErrorType
from agent_dispatch.model.job import JobKind, JobStatus, JobSummary
from agent_dispatch.server.inline.job import MAX_ROW_CHARS, short_row

ROW = JobSummary(
    id="0190a7b0c1d27abc8def0123456789ab",
    kind=JobKind.CALL,
    agent="infra",
    status=JobStatus.FAILED,
    task="t" * 120,
    created_at=1730000000.123456,
    started_at=1730000001.123456,
    completed_at=1730000002.123456,
    session_id="11111111-2222-4333-8444-555555555555",
    success=False,
    cost_usd=0.0123,
    error_type=ErrorType.TIMEOUT,
    last_progress="p" * 20,
)
ORDER = ["session_id", "started_at", "completed_at", "last_progress", "task"]


def chars(row: dict[str, object]) -> int:
    return len(json.dumps(row, ensure_ascii=False, separators=(",", ":")))


@pytest.mark.parametrize("progress", [0, 20, 60, 100, 200])
@pytest.mark.parametrize("task", [0, 10, 60, 120])
@pytest.mark.parametrize("agent", ["a", "n" * 100])
def test_a_row_is_short_and_loses_as_little_as_possible(
    progress: int, task: int, agent: str
) -> None:
    whole = msgspec.structs.replace(
        ROW, last_progress="ä" * progress or None, task="ö" * task, agent=agent
    )
    row = short_row(whole)
    assert chars(row) <= MAX_ROW_CHARS
    kept = ("id", "agent", "status", "kind", "success", "cost_usd", "error_type")
    full = msgspec.to_builtins(whole)
    assert {name: row[name] for name in kept} == {name: full[name] for name in kept}
    left_out = [name for name in ORDER if name in full and name not in row]
    assert left_out == [name for name in ORDER if name in full][: len(left_out)]
    if left_out:
        assert chars(row | {left_out[-1]: full[left_out[-1]]}) > MAX_ROW_CHARS


def test_many_agents_are_the_first_and_a_number() -> None:
    row = short_row(msgspec.structs.replace(ROW, agents=["a", "b", "c", "d", "e"]))
    assert row["agents"] == ["a", "b", "c", "+2"]
    assert chars(short_row(msgspec.structs.replace(ROW, agents=["x" * 100] * 9))) <= MAX_ROW_CHARS
