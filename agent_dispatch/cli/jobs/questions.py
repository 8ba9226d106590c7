"""Commands about permission questions: `questions` and `answer`."""

import time
from collections.abc import Iterator

from agent_dispatch.cli.event_loop import call_service
from agent_dispatch.cli.jobs.display import age, short_id
from agent_dispatch.cli.jobs.lookup import find_job, open_remote_jobs
from agent_dispatch.cli.output import Colour, one_line, remark, warn, write_json, write_lines
from agent_dispatch.cli.shell import Shell, open_store
from agent_dispatch.cli.validation import check_choice
from agent_dispatch.core.questions import QuestionRow, question_rows, shown_input
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.model.question import AnsweredBy, Verdict

_ANSWERS = (Verdict.ALLOW.value, Verdict.DENY.value)


def questions(*, json: bool = False, shell: Shell) -> int:
    """List the calls that agents ask permission for, and those that nobody answered in time.

    Args:
        json: Print the list as JSON.
    """
    found = waiting_questions(open_store(shell))
    if open_remote_jobs(shell).ids():
        elsewhere, problems = call_service(shell, lambda service: service.jobs.questions_on_hosts())
        found = sorted([*found, *elsewhere], key=lambda row: row.asked_at)
        for problem in problems:
            warn(shell, problem)
    if json:
        write_json(shell, found)
    elif found:
        for question in found:
            write_lines(shell, _lines(question, time.time()))
    else:
        write_lines(shell, ["No questions."])
    return 0


def answer(
    job_id: str, answer: str, /, *, question: str = "", json: bool = False, shell: Shell
) -> int:
    """Allow or deny the call that an agent asks for, once. Any shell of yours will do.

    If the job has ended, `allow` starts a background job: it resumes the session, and exactly
    that call is allowed once.

    Args:
        job_id: The beginning or the end of its id, at least 4 digits; or `last`.
        answer: allow or deny.
        question: The id of the question; by default the oldest of the job.
        json: Print the outcome as JSON.
    """
    check_choice("The answer", answer, _ANSWERS)
    full = find_job(open_store(shell), job_id, open_remote_jobs(shell))
    answered = call_service(
        shell, lambda service: service.jobs.answer(full, Verdict(answer), AnsweredBy.CLI, question)
    )
    if json:
        write_json(shell, answered)
    elif answered.outcome == "resumed":
        write_lines(shell, [f"Allowed once. Its session goes on in job {answered.job_id}."])
        remark(shell, f"Its answer: agent-dispatch wait {short_id(answered.job_id)}", Colour.FAINT)
    else:
        done = "Allowed this call." if answer == Verdict.ALLOW else "Denied this call."
        write_lines(shell, [done])
    return 0


def waiting_questions(store: JobStore) -> list[QuestionRow]:
    """All questions that can be answered, oldest first."""
    found = [row for job in store.lister.with_questions() for row in question_rows(job)]
    return sorted(found, key=lambda row: row.asked_at)


def _lines(row: QuestionRow, now: float) -> Iterator[str]:
    job = short_id(row.job_id)
    since = f"{row.state}, asked {age(now - row.asked_at)} ago"
    yield f"{job}  {one_line(row.agent)} asks for {one_line(row.tool)}  ({since})"
    yield f"  {shown_input(row.input)}"
    yield f"  agent-dispatch answer {job} allow --question {row.id}   (or deny)"
