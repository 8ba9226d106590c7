"""Answers to permission questions that were given after the job had ended.

`answers/JOB.QUESTION.json` holds the answered question, which replaces the one in the job's final
record for all readers. The file is created exclusively, so only the first answer counts. It is
removed with the record.
"""

import os
import re
from contextlib import suppress

import msgspec

from agent_dispatch.errors import NOT_JSON
from agent_dispatch.files import (
    Disk,
    make_private_directory,
    names_in,
    opened_regular,
    read_all,
    remove,
    remove_quietly,
    sync_directory,
    write_new,
)
from agent_dispatch.jobs.errors import AnsweredError, store_errors
from agent_dispatch.jobs.ids import JOB_ID, check_job_id
from agent_dispatch.model.job import Job
from agent_dispatch.model.question import PastQuestion, Verdict

_QUESTION_ID = r"[0-9a-f]{1,32}"
_NAME = re.compile(rf"({JOB_ID})\.{_QUESTION_ID}\.json")
_MAX_BYTES = 64 << 20

_PAST: msgspec.json.Decoder[PastQuestion] = msgspec.json.Decoder(PastQuestion)


def job_of(name: str) -> str | None:
    """The id of the job that an answer file belongs to; None for any other file."""
    match = _NAME.fullmatch(name)
    return None if match is None else match[1]


class LateAnswers:
    """The late answers of one jobs directory. Safe to use from several threads."""

    def __init__(self, jobs: str, disk: Disk) -> None:
        """Use `answers/` in the directory `jobs`; it is made with the first answer."""
        self._jobs = jobs
        self.directory = os.path.join(jobs, "answers")
        self._disk = disk

    def give(self, job_id: str, question: PastQuestion) -> None:
        """Record the answer to a question, durably and once.

        Raises:
            AnsweredError: The question has an answer already.
            JobStoreError: The answer cannot be recorded; nothing of it is left.
        """
        path = self._path(job_id, question.id)
        what = f"The answer to the question of job {job_id} cannot be recorded"
        with store_errors(what, self._jobs):
            make_private_directory(self.directory, self._disk)
            try:
                write_new(path, msgspec.json.encode(question), self._disk)
            except FileExistsError:
                raise AnsweredError(job_id) from None
            try:
                sync_directory(self.directory, self._disk)
            except BaseException:
                remove_quietly(path, disk=self._disk)
                raise

    def take_back(self, job_id: str, question_id: str) -> None:
        """Remove an answer that had no effect, so that another one can be given.

        Raises:
            JobStoreError: It cannot be removed.
        """
        path = self._path(job_id, question_id)
        what = f"The answer to the question of job {job_id} cannot be taken back"
        with store_errors(what, self._jobs):
            remove(path, self._disk)
            sync_directory(self.directory, self._disk)

    def merged(self, job: Job) -> Job:
        """The job with its late answers filled in."""
        questions = job.questions or []
        if all(question.answer is not Verdict.UNANSWERED for question in questions):
            return job
        late = [self._read(job.id, question) for question in questions]
        return msgspec.structs.replace(job, questions=late)

    def remove(self, job_id: str) -> int:
        """Remove the answers of a job, and count them."""
        names = [name for name in names_in(self.directory, self._disk) if job_of(name) == job_id]
        return sum(remove(os.path.join(self.directory, name), self._disk) for name in names)

    def _read(self, job_id: str, question: PastQuestion) -> PastQuestion:
        """The question with its late answer, if there is one and it can be read."""
        if question.answer is not Verdict.UNANSWERED or not re.fullmatch(_QUESTION_ID, question.id):
            return question
        with (
            suppress(OSError, *NOT_JSON),
            opened_regular(self._path(job_id, question.id), self._disk) as (fd, _),
        ):
            answered = _PAST.decode(read_all(fd, _MAX_BYTES, self._disk))
            return msgspec.structs.replace(
                question,
                answer=answered.answer,
                answered_by=answered.answered_by,
                answered_at=answered.answered_at,
            )
        return question

    def _path(self, job_id: str, question_id: str) -> str:
        check_job_id(job_id)
        if not re.fullmatch(_QUESTION_ID, question_id):
            raise ValueError(f"{question_id!r} is not the id of a question")
        return os.path.join(self.directory, f"{job_id}.{question_id}.json")
