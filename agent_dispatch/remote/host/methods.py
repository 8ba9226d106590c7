"""The methods that a caller on another machine can call with `ask`, within its rights."""

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec

from agent_dispatch.core.questions import question_rows
from agent_dispatch.errors import InvalidRequestError, UnknownAgentError
from agent_dispatch.jobs.errors import UnknownJobError
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.model.question import AnsweredBy, Verdict
from agent_dispatch.model.rights import ChangedBy
from agent_dispatch.run.service import Service
from agent_dispatch.threads import Pool, in_pool, in_thread

Doctor = Callable[[], Sequence[dict[str, Any]]]
"""Checks the installation here; blocks."""


class Rights(msgspec.Struct, frozen=True):
    """What a caller may do: everything here, or what its forced command says."""

    caller: str = ""
    agents: frozenset[str] | None = None
    """The agents that it sees; None: all, and no forced command limits it."""

    def require_agent(self, name: str) -> None:
        """Refuse a forced caller the agents of others.

        Raises:
            UnknownAgentError: It sees no such agent.
        """
        if self.agents is not None and name not in self.agents:
            raise UnknownAgentError(name, self.agents)

    async def require_own(self, store: JobStore, job_id: str) -> None:
        """Refuse a forced caller what it did not submit itself.

        Raises:
            UnknownJobError: It sees no such job.
        """
        if self.agents is None:
            return
        submission = await in_thread(store.submissions.of, job_id)
        if submission is None or submission.caller != self.caller:
            raise UnknownJobError(job_id)


class Answers:
    """Answers the questions of one caller."""

    def __init__(self, service: Service, store: JobStore, rights: Rights, doctor: Doctor) -> None:
        """Answer from `service` and `store`, as far as `rights` go."""
        self._service = service
        self._store = store
        self._rights = rights
        self._doctor = doctor

    async def to(self, what: str, args: Mapping[str, Any]) -> object:
        """Answer one question.

        Raises:
            InvalidRequestError: It is unknown, its arguments are wrong, or this caller may not
                ask it.
            DispatchError: As the service raises it.
        """
        for_all: dict[str, Callable[..., Awaitable[object]]] = {
            "agents": self._agents,
            "inspect": self._inspect,
            "status": self._status,
            "send": self._send,
        }
        of_this_user: dict[str, Callable[..., Awaitable[object]]] = {
            "add": self._add,
            "answer": self._answer,
            "doctor": self._check,
            "questions": self._questions,
        }
        if what in of_this_user and self._rights.agents is not None:
            raise InvalidRequestError(f"A forced command does not allow {what!r}.")
        answer = {**for_all, **of_this_user}.get(what)
        if answer is None:
            raise InvalidRequestError(f"This version does not know the question {what!r}.")
        try:
            return await answer(**args)
        except TypeError as error:
            raise InvalidRequestError(f"Wrong arguments for {what!r}: {error}.") from error

    async def _agents(self) -> object:
        allowed = self._rights.agents
        agents = await self._service.agents.summaries()
        return [row for row in agents if allowed is None or row.name in allowed]

    async def _inspect(self, name: str, preview_lines: int = 40) -> object:
        self._rights.require_agent(name)
        return await self._service.agents.inspect(name, preview_lines)

    async def _status(self, job_id: str) -> object:
        await self._rights.require_own(self._store, job_id)
        return await self._service.jobs.get(job_id)

    async def _send(self, job_id: str, text: str) -> object:
        await self._rights.require_own(self._store, job_id)
        return await self._service.jobs.send(job_id, text)

    async def _questions(self) -> object:
        asked = await in_pool(Pool.BULK, self._store.lister.with_questions)
        return [row for job in asked for row in question_rows(job)]

    async def _answer(self, job_id: str, verdict: str, by: str, question_id: str = "") -> object:
        try:
            meant, who = Verdict(verdict), AnsweredBy(by)
        except ValueError as error:
            raise InvalidRequestError(f"Wrong arguments for 'answer': {error}.") from error
        return await self._service.jobs.answer(job_id, meant, who, question_id)

    async def _check(self) -> object:
        return await in_thread(self._doctor)

    async def _add(self, name: str, directory: str, description: str = "") -> object:
        """Register a directory; if it is an agent already, return that agent unchanged."""
        if name not in {agent.name for agent in await self._service.agents.summaries()}:
            return await self._service.agents.add(
                name, directory, by=ChangedBy.CLI, description=description
            )
        details = await self._service.agents.inspect(name, 0)

        def is_same() -> bool:
            meant = os.path.realpath(os.path.expanduser(directory))
            return meant == os.path.realpath(details.directory)

        if not await in_thread(is_same):
            raise InvalidRequestError(
                f"Agent {name!r} exists there already, with the directory {details.directory}."
            )
        return details
