"""Answers of several dispatches, as they go out with one call."""

import msgspec

from agent_dispatch.model.dispatch import DispatchResult
from agent_dispatch.model.job import JobKind
from agent_dispatch.model.parallel import ParallelAnswer, ParallelResult
from agent_dispatch.model.replies import ResultRef
from agent_dispatch.server.inline.job import inline_job, inline_parallel
from agent_dispatch.server.inline.result import INLINE_CHARS
from tests.core.test_group_job import FAILED, MEMBER, group_of, member, result


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
