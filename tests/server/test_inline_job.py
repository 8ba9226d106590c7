import json

import msgspec
import pytest

from agent_dispatch.model.dispatch import DispatchResult, ErrorType
from agent_dispatch.model.job import JobKind, JobStatus, JobSummary
from agent_dispatch.model.parallel import ParallelAnswer, ParallelResult
from agent_dispatch.model.replies import ResultRef
from agent_dispatch.server.inline.job import MAX_ROW_CHARS, inline_job, inline_parallel, short_row
from agent_dispatch.server.inline.result import INLINE_CHARS
from tests.core.test_group_job import FAILED, MEMBER, group_of, member, result

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


def test_each_answer_is_worded_and_a_ref_stands_for_a_long_one() -> None:
    outcome = ParallelResult(individual_results=[result("infra", "four pods"), FAILED])
    both = inline_parallel(outcome, [member("infra", ref=True), member("db")])
    assert isinstance(both, list)
    first, second = both
    assert isinstance(first, ResultRef)
    assert (first.ref, first.summary) == (MEMBER, "fou")
    assert isinstance(second, DispatchResult)
    assert second.error == "It was down.\nList the known jobs: dispatch_jobs()"


def test_the_combined_answer_comes_beside_those_of_the_members() -> None:
    outcome = ParallelResult(
        individual_results=[result("infra", "four pods"), FAILED], aggregated=result("web", "all")
    )
    together = inline_parallel(outcome, [member("infra"), member("db")])
    assert isinstance(together, ParallelAnswer)
    assert together.aggregated.result == "all"


def test_the_answers_in_the_record_of_a_group_are_cut_and_worded() -> None:
    job = group_of(result("infra", "x" * 100_000), FAILED)
    shown = inline_job(job).result
    assert shown is not None
    assert isinstance(shown.parsed_result, list)
    assert len(shown.parsed_result[0]["result"]) == INLINE_CHARS
    assert shown.parsed_result[1]["error"].endswith("\nList the known jobs: dispatch_jobs()")
    assert "next_steps" not in shown.parsed_result[1]


def test_a_json_answer_of_another_job_is_not_touched() -> None:
    group = group_of(result("infra", "four pods"), FAILED)
    assert group.result is not None
    shown = inline_job(msgspec.structs.replace(group, kind=JobKind.BACKGROUND)).result
    assert shown is not None
    assert shown.parsed_result == group.result.parsed_result
