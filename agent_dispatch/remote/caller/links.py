"""The links of one process: requests to a host, and a job followed through any number of cuts."""

import random
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import trio

from agent_dispatch.claude.launcher import Launcher
from agent_dispatch.config.hosts import host_named
from agent_dispatch.config.registry import Registry
from agent_dispatch.model.dispatch import OnProgress, Progress, ignore_progress
from agent_dispatch.model.job import Job
from agent_dispatch.remote.caller.connection import LinkLostError
from agent_dispatch.remote.caller.followed_job import FollowedJob
from agent_dispatch.remote.caller.link import Link, UnreachableError
from agent_dispatch.remote.caller.translate import error_from, read
from agent_dispatch.remote.frames import Accepted, AnyFrame, Ask, End, Event, Frame, Told
from agent_dispatch.threads import in_thread

T = TypeVar("T")

_ANSWER_S = 30.0
"""How long a host may take to answer a request that waits for no agent."""
_PAUSE_S = (0.02, 0.2)
"""After a cut: a host that cuts every link at once must not keep us busy."""


class Links:
    """At most one link to each host of the configuration."""

    def __init__(
        self,
        *,
        registry: Registry,
        launcher: Launcher,
        environ: Mapping[str, str],
        nursery: trio.Nursery,
    ) -> None:
        """Serve the hosts of `registry`; nothing is contacted yet. `Link` describes the rest."""
        self._registry = registry
        self._launcher = launcher
        self._environ = environ
        self._nursery = nursery
        self._links: dict[str, Link] = {}

    async def to(self, name: str) -> Link:
        """Return the link to a host: a new one if its configuration has changed.

        Raises:
            DispatchError: There is no such host, or its table is broken.
        """
        host = host_named(await in_thread(self._registry.load), name)
        link = self._links.get(name)
        if link is None or link.host != host:
            link = self._links[name] = Link(
                name,
                host,
                launcher=self._launcher,
                environ=self._environ,
                nursery=self._nursery,
            )
        return link

    async def call(
        self,
        host: str,
        method: str,
        returns: type[T],
        args: Mapping[str, Any] | None = None,
        patience_s: float = 0,
    ) -> T:
        """Call one of `remote.host.methods` on a host, and return its answer.

        Args:
            host: The host.
            method: The name of the method.
            returns: What it returns.
            args: Its arguments.
            patience_s: How long to try to reach the host; there is at least one attempt.

        Raises:
            UnreachableError: The host cannot be reached.
            DispatchError: The host refuses the call, or its answer cannot be read.
        """
        answer = await self.request(
            host, lambda n: Ask(n=n, what=method, args=dict(args or {})), patience_s
        )
        if not isinstance(answer, Told):
            raise error_from(host, answer)
        return read(answer.value, returns)

    async def request(
        self, host: str, make_frame: Callable[[int], Frame], patience_s: float
    ) -> AnyFrame:
        """Send a request that is safe to repeat, and return its answer.

        Raises:
            UnreachableError: The host cannot be reached within `patience_s`.
        """
        link = await self.to(host)
        until = trio.current_time() + patience_s
        while True:
            connection = await link.connection(until)
            try:
                with trio.fail_after(_ANSWER_S):
                    return await connection.ask(make_frame)
            except LinkLostError:
                if trio.current_time() >= until:
                    raise UnreachableError(host, "the link was cut.") from None
                await trio.sleep(random.uniform(*_PAUSE_S))
            except trio.TooSlowError:
                raise UnreachableError(host, f"it did not answer for {_ANSWER_S:g} s.") from None


async def follow(
    link: Link, followed: FollowedJob, on_progress: OnProgress = ignore_progress
) -> Accepted | Job:
    """Follow a call to its end, or a background job until it is accepted, through all cuts.

    Returns:
        The job as its host has it; or the frame by which the host accepted a background job, or
        answered without a job.

    Raises:
        UnreachableError: The host cannot be reached for longer than the caller waits.
        DispatchError: The host refused the job.
    """

    def on_event(event: Event) -> None:
        if followed.is_new_event(event.seq):
            on_progress(Progress(event.line))

    while True:
        connection = await link.connection(followed.gives_up_at)
        try:
            with connection.events(followed.job_id, on_event):
                answer = await connection.ask(followed.next_frame)
                if isinstance(answer, Accepted):
                    followed.accepted()
                    if answer.result is not None or followed.is_background:
                        return answer
                    answer = await connection.ask(followed.next_frame)
        except LinkLostError:
            followed.cut(trio.current_time())
            await trio.sleep(random.uniform(*_PAUSE_S))
            continue
        if isinstance(answer, End):
            return read(answer.job, Job)
        raise error_from(link.name, answer)
