from itertools import product

import msgspec
import pytest

from agent_dispatch.jobs import record
from agent_dispatch.jobs.reconcile import verdict
from agent_dispatch.model.dispatch import DispatchRequest, DispatchResult, ErrorType
from agent_dispatch.model.job import (
    Job,
    JobKind,
    JobStatus,
    may_become,
    new_job,
    summarise,
)
from agent_dispatch.model.next_step import NextStep, StepKind
from tests.jobs.support import CANCELLED, DONE, FAILED, REQUEST

ID = "0190b5f0000070008000000000000001"
LEGAL = {
    ("pending", "pending"),
    ("pending", "running"),
    ("pending", "failed"),
    ("pending", "cancelled"),
    ("running", "running"),
    ("running", "done"),
    ("running", "failed"),
    ("running", "cancelled"),
}


def a_job(request: DispatchRequest = REQUEST) -> Job:
    return new_job(ID, request, 1000.0, kind=JobKind.CALL)


@pytest.mark.parametrize(("old", "new"), list(product(JobStatus, JobStatus)))
def test_a_job_goes_forward_only_and_its_end_is_final(old: JobStatus, new: JobStatus) -> None:
    assert may_become(old, new) == ((old.value, new.value) in LEGAL)


def test_a_request_can_be_rebuilt_from_its_record() -> None:
    request = DispatchRequest(
        agent="infra",
        task="t",
        context="c",
        caller="me",
        goal="g",
        group="shop",
        response_format="json",
        timeout_s=12.5,
        session_id="5e55",
        model="opus",
        effort="high",
    )
    assert a_job(request).request() == request


def test_unset_fields_are_left_out_of_the_record() -> None:
    assert list(msgspec.json.decode(msgspec.json.encode(a_job()))) == [
        "id",
        "kind",
        "agent",
        "task",
        "status",
        "created_at",
    ]


@pytest.mark.parametrize(
    ("result", "status"),
    [(DONE, JobStatus.DONE), (FAILED, JobStatus.FAILED), (CANCELLED, JobStatus.CANCELLED)],
)
def test_the_status_follows_from_the_result(result: DispatchResult, status: JobStatus) -> None:
    job = record.ended(record.started(a_job(), 1001.0), result, 1002.0)
    assert job.status is status
    assert job.completed_at == 1002.0
    assert job.result is not None
    assert job.result.job_id == ID
    assert (job.error, job.error_type) == (result.error, result.error_type)


def test_a_lost_job_says_how_to_resume_its_conversation() -> None:
    job = msgspec.structs.replace(a_job(), session_id="5e55")
    over = verdict(job, 1002.0)
    assert over.status is JobStatus.FAILED
    assert over.error_type is ErrorType.LOST
    assert over.session_id == "5e55"
    assert over.error is not None
    assert over.result is not None
    resume = NextStep(kind=StepKind.RESUME, agent=job.agent, session_id="5e55")
    assert over.result.next_steps == [resume]
    assert over.result.error == over.error


def test_a_lost_job_without_a_conversation_promises_none() -> None:
    over = verdict(a_job(), 1002.0)
    assert over.session_id is None
    assert over.result is not None
    assert over.result.next_steps == [NextStep(kind=StepKind.RESUME, agent=over.agent)]


def test_a_cancelled_job_names_who_cancelled_it() -> None:
    over = verdict(a_job(), 1002.0, cancelled_by="the CLI")
    assert over.status is JobStatus.CANCELLED
    assert over.error is not None
    assert over.error.startswith("Cancelled by the CLI.")


def test_a_summary_is_small_whatever_the_job() -> None:
    request = DispatchRequest(agent="infra", task="t" * 100_000, context="c" * 100_000)
    job = record.with_progress(a_job(request), [f"{n} " + "p" * 10_000 for n in range(99)], 2.0)
    job = record.ended(
        record.started(job, 1.0), DispatchResult(agent="infra", success=True, result="r" * 9999), 2
    )
    summary = summarise(job)
    assert summary.task == "t" * 120
    assert summary.success is True
    assert summary.last_progress is not None
    assert summary.last_progress.startswith("98 ")
    assert len(msgspec.json.encode(summary)) < 1000
    assert job.progress is not None
    assert len(job.progress) == 20
    assert sum(map(len, job.progress)) <= 20 * 500
