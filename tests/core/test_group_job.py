"""The record of several dispatches."""

import msgspec

from agent_dispatch.core import group_job
from agent_dispatch.model.dispatch import DispatchRequest, DispatchResult, ErrorType, Member
from agent_dispatch.model.job import Job, JobKind, new_job
from agent_dispatch.model.next_step import NextStep, StepKind
from agent_dispatch.model.parallel import ParallelResult

JOB_ID = "0190a7b0c1d27abc8def0123456789ab"
MEMBER = "0190a7b0c1d27abc8def0123456789ac"


def member(agent: str, task: str = "look", *, ref: bool = False) -> Member:
    request = DispatchRequest(agent=agent, task=task, caller="me")
    return Member(request=request, ref=ref, summary_chars=3)


def result(agent: str, text: str, cost_usd: float | None = None) -> DispatchResult:
    return DispatchResult(agent=agent, success=True, result=text, job_id=MEMBER, cost_usd=cost_usd)


def say(step: NextStep) -> str:
    return f"<{step.kind}>"


FAILED = DispatchResult(
    agent="db",
    success=False,
    result="",
    job_id=JOB_ID,
    error="It was down.",
    error_type=ErrorType.CLI_ERROR,
    next_steps=[NextStep(kind=StepKind.LIST_JOBS)],
)


def group_of(*results: DispatchResult) -> Job:
    """The record of a group that ran to its end."""
    members = [member(each.agent) for each in results]
    request = group_job.as_dispatch(members, "")
    job = new_job(JOB_ID, request, 1.0, kind=JobKind.GROUP, fields={"dispatches": members})
    outcome = ParallelResult(individual_results=list(results))
    ended = group_job.to_record(request.agent, outcome, 1)
    return msgspec.structs.replace(job, result=ended)


def test_a_group_is_recorded_as_one_request_of_bounded_size() -> None:
    members = [member(f"agent{number}", "x" * 10_000) for number in range(1000)]
    request = group_job.as_dispatch(members, "last")
    assert request.agent == "agent0, agent1, agent2, agent3, agent4, …"
    assert request.task.startswith("1000 dispatches: agent0: xxx")
    assert request.task.endswith("and 980 more")
    assert len(request.task) < 20_000
    assert request.caller == "me"
    assert group_job.agents_of(members, "agent7") == [f"agent{number}" for number in range(1000)]
    assert group_job.agents_of([member("a"), member("a")], "b") == ["a", "b"]


def test_a_group_that_ran_to_its_end_is_a_success_whatever_its_members_did() -> None:
    outcome = ParallelResult(individual_results=[result("infra", "four", 0.5), FAILED])
    recorded = group_job.to_record("infra, db", outcome, 12)
    assert recorded.success
    assert recorded.result == "1 of 2 dispatches succeeded; parsed_result has the answers."
    assert (recorded.cost_usd, recorded.duration_ms) == (0.5, 12)
    assert group_job.from_record(recorded) == outcome
    last = msgspec.structs.replace(result("web", "all in all", 0.25), job_id="0" * 32)
    combined = msgspec.structs.replace(outcome, aggregated=last)
    recorded = group_job.to_record("infra, db, web", combined, 12)
    assert (recorded.result, recorded.cost_usd) == ("all in all", 0.75)
    assert group_job.from_record(recorded) == combined


def test_an_answer_that_cannot_be_encoded_does_not_remove_the_others() -> None:
    outcome = ParallelResult(individual_results=[result("infra", "caf\udce9"), FAILED])
    recorded = group_job.to_record("infra, db", outcome, 1)
    msgspec.json.encode(recorded)
    read = group_job.from_record(recorded)
    assert read is not None
    assert read.individual_results[0].result == "caf\ufffd"


def test_a_group_that_was_cut_off_has_no_answers() -> None:
    ended = group_job.cancelled("infra", [MEMBER] * 9, "a caller")
    assert ended.error_type is ErrorType.CANCELLED
    assert group_job.from_record(ended) is None
    assert len(ended.next_steps or ()) == 5


def test_the_results_of_a_group_are_worded_in_its_record_and_no_other() -> None:
    job = group_of(result("infra", "x" * 100_000), FAILED)
    shown = group_job.with_whole_answers(job, say).result
    assert shown is not None
    assert isinstance(shown.parsed_result, list)
    assert len(shown.parsed_result[0]["result"]) == 100_000
    assert shown.parsed_result[1]["error"] == "It was down.\n<list_jobs>"
    assert "next_steps" not in shown.parsed_result[1]
    other = msgspec.structs.replace(job, kind=JobKind.BACKGROUND)
    assert group_job.with_whole_answers(other, say) is other
