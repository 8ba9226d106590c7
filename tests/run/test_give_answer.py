"""Answers to permission questions: to a running job, and to one that has ended."""

import json
import os
from pathlib import Path

import msgspec
import pytest
import trio

from agent_dispatch.claude.fork_server import ForkServer
from agent_dispatch.core.questions import NoQuestionError
from agent_dispatch.errors import DispatchError, InvalidRequestError
from agent_dispatch.jobs.errors import AnsweredError
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.model.dispatch import DispatchRequest, DispatchResult, ErrorType
from agent_dispatch.model.job import Job, JobKind, JobStatus
from agent_dispatch.model.question import AnsweredBy, PastQuestion, Question, Verdict
from agent_dispatch.run.service import Service
from tests.jobs.support import DONE, REQUEST, end, running
from tests.run.stage import SESSION, Stage, task
from tests.run.test_questions import ASKING

BRIEF = 'permission_prompts = "ask"\nquestion_seconds = 1\n'
LATE = (
    ASKING
    + """
prompt = read_turn(); init()
resumed = any(word.startswith("--resume=") for word in sys.argv)
calls = [("Bash", {"n": 1})]
if resumed:
    others = [("Bash", {"n": True}), ("Write", {"n": 1}), ("Bash", {"n": 1, "more": 0})]
    calls = [*others, *calls, *calls]
said = []
for number, (tool, given) in enumerate(calls):
    ask(f"r{number}", given, tool)
    said.append(reply()["response"]["behavior"])
asks = "--permission-prompt-tool=stdio" in sys.argv
result(json.dumps([resumed, prompt, said, asks]))
"""
)


@pytest.fixture
def stage(fork_server: ForkServer, tmp_path: Path) -> Stage:
    stage = Stage(fork_server, tmp_path)
    stage.environ = {
        name: value for name, value in stage.environ.items() if name != "AGENT_DISPATCH_DEPTH"
    }
    return stage


@pytest.fixture
def store(tmp_path: Path) -> JobStore:
    return JobStore(tmp_path / "jobs")


async def finished(service: Service, job_id: str) -> Job:
    job = await service.jobs.wait(job_id, 40)
    assert job.status.is_terminal
    return job


@pytest.mark.parametrize("asks_later", [True, False])
async def test_a_call_that_is_allowed_later_is_made_once_in_a_job_of_its_own(
    asks_later: bool, stage: Stage, store: JobStore
) -> None:
    stage.configure(settings=BRIEF)
    with trio.fail_after(60):
        async with stage.open(stage.tree(LATE)) as service:
            submitted = await service.submit(task("go"))
            first = await finished(service, submitted.id)
            assert first.result is not None
            assert json.loads(first.result.result)[2] == ["deny"]
            assert first.questions is not None
            (past,) = first.questions
            assert past.answer is Verdict.UNANSWERED

            stage.configure(settings=BRIEF if asks_later else "")
            answered = await service.jobs.answer(first.id, Verdict.ALLOW, AnsweredBy.CLI)
            assert answered.outcome == "resumed"
            assert answered.job_id != first.id
            second = await finished(service, answered.job_id)
            with pytest.raises(DispatchError, match="answered already"):
                await service.jobs.answer(first.id, Verdict.ALLOW, AnsweredBy.CLI, past.id)
            with pytest.raises(NoQuestionError):
                await service.jobs.answer(first.id, Verdict.DENY, AnsweredBy.CLI)

    assert second.kind is JobKind.BACKGROUND
    assert second.resume_session_id == SESSION
    assert second.result is not None
    resumed, prompt, said, asks = json.loads(second.result.result)
    assert resumed
    assert asks
    assert '{"n":1}' in prompt
    assert said == ["deny", "deny", "deny", "allow", "deny"]
    unanswered = [Verdict.UNANSWERED] * 3 if asks_later else []
    assert [each.answer for each in second.questions or ()] == [
        *unanswered,
        Verdict.ALLOW,
        *unanswered[:1],
    ]
    recorded = store.read(first.id).questions
    assert recorded is not None
    (late,) = recorded
    assert (late.answer, late.answered_by) == (Verdict.ALLOW, AnsweredBy.CLI)
    assert late.answered_at is not None


async def test_a_late_denial_starts_nothing(stage: Stage, store: JobStore) -> None:
    job_id = asked_in_vain(store)
    stage.configure()
    async with stage.open(stage.tree(LATE)) as service:
        answered = await service.jobs.answer(job_id, Verdict.DENY, AnsweredBy.CLI)
        assert (answered.job_id, answered.outcome) == (job_id, "answered")
        with pytest.raises(NoQuestionError):
            await service.jobs.answer(job_id, Verdict.ALLOW, AnsweredBy.CLI)
    assert [each.answer for each in store.read(job_id).questions or ()] == [Verdict.DENY]
    assert len(store.lister.newest().jobs) == 1


async def test_a_lost_job_can_still_be_answered(stage: Stage, store: JobStore) -> None:
    claim = running(store)
    asked = Question(id="a1", tool="Bash", input={"n": 1}, asked_at=1, agent="infra")
    store.update(claim, msgspec.structs.replace(claim.job, question=asked, session_id=SESSION))
    store.release(claim)
    stage.configure()
    with trio.fail_after(60):
        async with stage.open(stage.tree(LATE)) as service:
            job = await service.jobs.get(claim.job.id)
            assert job.error_type is ErrorType.LOST
            answered = await service.jobs.answer(claim.job.id, Verdict.ALLOW, AnsweredBy.CLI)
            assert answered.outcome == "resumed"
            await finished(service, answered.job_id)


async def test_an_answer_that_could_not_start_anything_can_be_given_again(
    stage: Stage, store: JobStore
) -> None:
    job_id = asked_in_vain(store, agent="elsewhere")
    stage.configure()
    async with stage.open(stage.tree(LATE)) as service:
        for _ in range(2):
            with pytest.raises(DispatchError, match="Unknown agent"):
                await service.jobs.answer(job_id, Verdict.ALLOW, AnsweredBy.CLI)
    assert [each.answer for each in store.read(job_id).questions or ()] == [Verdict.UNANSWERED]


async def test_without_a_session_there_is_nothing_to_resume(stage: Stage, store: JobStore) -> None:
    job_id = asked_in_vain(store, result=msgspec.structs.replace(DONE, session_id=None))
    stage.configure()
    async with stage.open(stage.tree(LATE)) as service:
        with pytest.raises(InvalidRequestError, match="session"):
            await service.jobs.answer(job_id, Verdict.ALLOW, AnsweredBy.CLI)
        answered = await service.jobs.answer(job_id, Verdict.DENY, AnsweredBy.CLI)
    assert answered.outcome == "answered"


@pytest.mark.parametrize("depth", ["1", "7", "nonsense"])
async def test_a_dispatched_agent_allows_itself_nothing(
    depth: str, stage: Stage, store: JobStore
) -> None:
    job_id = asked_in_vain(store)
    stage.configure()
    stage.environ["AGENT_DISPATCH_DEPTH"] = depth
    async with stage.open(stage.tree(LATE)) as service:
        with pytest.raises(InvalidRequestError, match="does not allow itself"):
            await service.jobs.answer(job_id, Verdict.ALLOW, AnsweredBy.CLI)
        assert (
            await service.jobs.answer(job_id, Verdict.DENY, AnsweredBy.CLI)
        ).outcome == "answered"


async def test_of_a_running_job_only_an_open_question_takes_an_answer(
    stage: Stage, store: JobStore
) -> None:
    claim = running(store)
    store.update(claim, msgspec.structs.replace(claim.job, questions=[past("a1")]))
    stage.configure()
    async with stage.open(stage.tree(LATE)) as service:
        with pytest.raises(InvalidRequestError, match="when the job has ended"):
            await service.jobs.answer(claim.job.id, Verdict.ALLOW, AnsweredBy.CLI)
        with pytest.raises(NoQuestionError, match="has no question"):
            await service.jobs.answer(claim.job.id, Verdict.ALLOW, AnsweredBy.CLI, "b2")
    store.release(claim)


def past(question_id: str, agent: str = "infra") -> PastQuestion:
    return PastQuestion(
        id=question_id,
        tool="Bash",
        input={"command": "touch a"},
        asked_at=1,
        agent=agent,
        answer=Verdict.UNANSWERED,
    )


def asked_in_vain(
    store: JobStore,
    *,
    agent: str = "infra",
    result: DispatchResult = msgspec.structs.replace(DONE, session_id=SESSION),  # noqa: B008
) -> str:
    """The id of a job that ended with a question that nobody answered."""
    claim = store.create(
        store.new_job(msgspec.structs.replace(REQUEST, agent=agent), kind=JobKind.BACKGROUND)
    )
    job = msgspec.structs.replace(
        claim.job, status=JobStatus.RUNNING, started_at=1.0, questions=[past("a1", agent)]
    )
    store.update(claim, job)
    end(store, claim, msgspec.structs.replace(result, agent=agent))
    return claim.job.id


# -- on disk


def test_of_two_late_answers_the_first_counts(store: JobStore, tmp_path: Path) -> None:
    job_id = asked_in_vain(store)
    answered = msgspec.structs.replace(past("a1"), answer=Verdict.DENY, answered_by=AnsweredBy.CLI)
    store.late_answers.give(job_id, answered)
    with pytest.raises(AnsweredError):
        JobStore(tmp_path / "jobs").late_answers.give(job_id, answered)
    (file,) = (tmp_path / "jobs" / "answers").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert [each.answer for each in store.settle(job_id).questions or ()] == [Verdict.DENY]


def test_a_late_answer_goes_with_its_record(store: JobStore, tmp_path: Path) -> None:
    answers = tmp_path / "jobs" / "answers"
    kept, gone = asked_in_vain(store), asked_in_vain(store)
    for job_id in (kept, gone):
        store.late_answers.give(job_id, past("a1"))
    store.retention.forget(gone)
    assert [path.name for path in answers.iterdir()] == [f"{kept}.a1.json"]
    os.unlink(tmp_path / "jobs" / f"{kept}.json")
    (answers / "mine.txt").touch()
    collected = store.retention.collect(7)
    assert collected.litter == 1
    assert [path.name for path in answers.iterdir()] == ["mine.txt"]
    assert collected.warnings == [
        "answers/mine.txt: not a name that agent-dispatch gives; left alone"
    ]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
def test_a_broken_late_answer_is_none(content: bytes, store: JobStore, tmp_path: Path) -> None:
    job_id = asked_in_vain(store)
    answers = tmp_path / "jobs" / "answers"
    answers.mkdir()
    (answers / f"{job_id}.a1.json").write_bytes(content)
    assert [each.answer for each in store.read(job_id).questions or ()] == [Verdict.UNANSWERED]


def test_jobs_with_questions_are_found_among_the_others(store: JobStore) -> None:
    asked = asked_in_vain(store)
    claim = running(store)
    end(store, claim)
    assert [job.id for job in store.lister.with_questions()] == [asked]


def test_no_request_can_carry_a_permission() -> None:
    assert "allow_once" not in DispatchRequest.__struct_fields__
