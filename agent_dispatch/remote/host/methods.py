"""The methods that a caller on another machine can call with `ask`, within its rights."""

import inspect
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from agent_dispatch.core.questions import question_rows
from agent_dispatch.errors import InvalidRequestError
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.model.question import AnsweredBy, Verdict
from agent_dispatch.model.rights import ChangedBy
from agent_dispatch.remote.host.rights import Rights
from agent_dispatch.run.service import Service
from agent_dispatch.threads import Pool, in_pool, in_thread

Doctor = Callable[[], Sequence[dict[str, Any]]]
"""Checks the installation here. Blocks."""


class Methods:
    """The methods for one caller."""

    def __init__(self, service: Service, store: JobStore, rights: Rights, doctor: Doctor) -> None:
        """Call `service`, `store` and `doctor` as far as `rights` go."""
        self._service = service
        self._store = store
        self._rights = rights
        self._doctor = doctor
        self._for_all: dict[str, Callable[..., Awaitable[object]]] = {
            "agents": self._agents,
            "inspect": self._inspect,
            "status": self._status,
            "send": self._send,
        }
        self._for_unlimited: dict[str, Callable[..., Awaitable[object]]] = {
            "add": self._add,
            "answer": self._answer,
            "doctor": self._check,
            "questions": self._questions,
        }

    async def call(self, name: str, args: Mapping[str, Any]) -> object:
        """Call a method.

        Raises:
            InvalidRequestError: There is no such method, its arguments are wrong, or this caller
                may not call it.
            DispatchError: As the service raises it.
        """
        if name in self._for_unlimited and self._rights.are_limited:
            raise InvalidRequestError(f"A forced command does not allow {name!r}.")
        method = self._for_all.get(name) or self._for_unlimited.get(name)
        if method is None:
            raise InvalidRequestError(f"This version does not know the request {name!r}.")
        try:
            inspect.signature(method).bind(**args)
        except TypeError as error:
            raise InvalidRequestError(f"Wrong arguments for {name!r}: {error}.") from error
        return await method(**args)

    async def _agents(self) -> object:
        agents = await self._service.agents.summaries()
        return [row for row in agents if self._rights.sees(row.name)]

    async def _inspect(self, name: str, preview_lines: int = 40) -> object:
        self._rights.require_agent(name)
        return await self._service.agents.inspect(name, preview_lines)

    async def _status(self, job_id: str) -> object:
        await self._rights.require_job(self._store, job_id)
        return await self._service.jobs.get(job_id)

    async def _send(self, job_id: str, text: str) -> object:
        await self._rights.require_job(self._store, job_id)
        return await self._service.jobs.send(job_id, text)

    async def _questions(self) -> object:
        jobs = await in_pool(Pool.BULK, self._store.lister.with_questions)
        return [row for job in jobs for row in question_rows(job)]

    async def _answer(self, job_id: str, verdict: str, by: str, question_id: str = "") -> object:
        try:
            known_verdict, answered_by = Verdict(verdict), AnsweredBy(by)
        except ValueError as error:
            raise InvalidRequestError(f"Wrong arguments for 'answer': {error}.") from error
        return await self._service.jobs.answer(job_id, known_verdict, answered_by, question_id)

    async def _check(self) -> object:
        return await in_thread(self._doctor)

    async def _add(self, name: str, directory: str, description: str = "") -> object:
        """Register a directory as an agent; if it is that agent already, change nothing."""
        if name not in {agent.name for agent in await self._service.agents.summaries()}:
            return await self._service.agents.add(
                name, directory, by=ChangedBy.CLI, description=description
            )
        details = await self._service.agents.inspect(name, 0)

        def is_same() -> bool:
            wanted = os.path.realpath(os.path.expanduser(directory))
            return wanted == os.path.realpath(details.directory)

        if not await in_thread(is_same):
            raise InvalidRequestError(
                f"Agent {name!r} exists there already, with the directory {details.directory}."
            )
        return details
