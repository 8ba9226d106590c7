"""Plan a call, once, from one snapshot of the configuration.

A plan needs no look at the agent's directory, which may hang. `Planner.command` looks at it, when
the job has a record and its caller knows the id.
"""

import secrets
import shlex
import uuid
from collections.abc import Iterable, Mapping, Sequence

import msgspec
import trio

from agent_dispatch.claude.find_claude import (
    check_directory,
    find_program,
    no_answer,
    with_program_on_path,
)
from agent_dispatch.config.registry import Registry
from agent_dispatch.config.snapshot import ConfigSnapshot
from agent_dispatch.core.command import (
    MARKER_VARIABLE,
    Command,
    RefusedValueError,
    build_command,
    current_depth,
    exclusive_above,
)
from agent_dispatch.core.dialogue.exchange import check_dialogue
from agent_dispatch.core.outcome.classify import classify
from agent_dispatch.core.outcome.refusal import (
    exclusive_refused,
    recursion_refused,
    refused,
    refused_by,
)
from agent_dispatch.core.outcome.report import StartFailure
from agent_dispatch.core.request.checks import check_request
from agent_dispatch.core.request.json_schema import without_dialect
from agent_dispatch.core.request.parallel import wrong_items
from agent_dispatch.core.request.timeout import clamped_timeout_s
from agent_dispatch.errors import ConfigError, DispatchError, InvalidRequestError
from agent_dispatch.model.config import EffectiveAgent, Settings
from agent_dispatch.model.dialogue import DialogueRequest, Role
from agent_dispatch.model.dispatch import DispatchRequest, DispatchResult, Member
from agent_dispatch.model.job import JOB_VARIABLE, Job
from agent_dispatch.model.ledger import TREE_VARIABLE
from agent_dispatch.model.next_step import run
from agent_dispatch.run.turns import not_started
from agent_dispatch.threads import DirectoryThreads

_CONFIG_S = 20.0
"""How long `agents.toml` may take to be read: longer than a disk is busy."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A checked request, and everything that its run needs from the configuration."""

    request: DispatchRequest
    agent: EffectiveAgent
    settings: Settings
    prompt: str
    verify: tuple[str, ...] | None = None
    """The command that checks the work; None: nothing is checked."""

    @property
    def is_shareable(self) -> bool:
        """Whether its answer may be given to other calls."""
        # The `verify` command of an agent on another host is not known here.
        verifies = self.verify is not None or self.request.verify
        return self.settings.cache.enabled and self.request.session_id is None and not verifies

    @property
    def timeout_s(self) -> float:
        """Seconds that its run may take: the call's own, within the range, or the agent's."""
        if self.request.timeout_s is None:
            return self.agent.timeout_s
        return clamped_timeout_s(self.request.timeout_s)


class DialoguePlan(msgspec.Struct, frozen=True, kw_only=True):
    """A checked dialogue, and everything that it needs from the configuration."""

    request: DialogueRequest
    agents: dict[Role, EffectiveAgent]
    settings: Settings

    @property
    def is_local(self) -> bool:
        """Both agents are on this machine."""
        return all(agent.host is None for agent in self.agents.values())


def plan_run(snapshot: ConfigSnapshot, request: DispatchRequest) -> Plan:
    """Check a request and plan its run.

    Raises:
        InvalidRequestError: The request cannot be sent as it is.
        UnknownAgentError: No such agent.
        UnusableAgentError: Its table in `agents.toml` is broken.
        UnknownGroupError: No such group.
        ConfigError: A setting is broken.
    """
    prompt = check_request(request)
    agent = snapshot.effective(request.agent)
    if request.group:
        shared = snapshot.shared_context(request.group, request.agent)
        prompt = check_request(request, shared)
        if agent.host is not None:
            # The host does not know the groups of this machine, so their context is sent along.
            context = "\n\n".join(filter(None, (shared, request.context)))
            request = msgspec.structs.replace(request, group="", context=context)
    if model := request.model.strip():
        agent = msgspec.structs.replace(agent, model=model)
    if effort := request.effort.strip():
        agent = msgspec.structs.replace(agent, effort=effort)
    return Plan(
        request=request,
        agent=agent,
        settings=snapshot.settings,
        prompt=prompt,
        verify=_verify_command(agent, request),
    )


def plan_members(
    snapshot: ConfigSnapshot, members: Sequence[Member], aggregate: str
) -> dict[DispatchRequest, Plan]:
    """Plan several dispatches; each plan is found under the request as its caller made it.

    Raises:
        InvalidRequestError: It names each task that is wrong.
        DispatchError: The agent `aggregate`, if there is one, cannot be used.
    """
    if aggregate:
        snapshot.effective(aggregate)
    plans: dict[DispatchRequest, Plan] = {}
    problems = []
    for index, member in enumerate(members):
        try:
            plans[member.request] = plan_run(snapshot, member.request)
        except DispatchError as error:
            problems.append(f"dispatches[{index}]: {error}")
    if problems:
        raise wrong_items(problems)
    return plans


def plan_dialogue(snapshot: ConfigSnapshot, request: DialogueRequest) -> DialoguePlan:
    """Check a dialogue and plan it; raises what `plan_run` raises."""
    request = check_dialogue(request)
    agents = {
        Role.RESPONDER: snapshot.effective(request.responder),
        Role.REQUESTER: snapshot.effective(request.requester),
    }
    return DialoguePlan(request=request, agents=agents, settings=snapshot.settings)


def _verify_command(agent: EffectiveAgent, request: DispatchRequest) -> tuple[str, ...] | None:
    wanted = request.verify or (agent.verify_always and not request.words_only)
    # An agent on another host is verified there, by its own table.
    if not wanted or agent.host is not None:
        return None
    if agent.verify is None:
        why = "was asked for" if request.verify else "is set as verify_always"
        set_it = f"agent-dispatch update {shlex.quote(agent.name)} --verify 'make test'"
        raise InvalidRequestError(
            f"Agent {agent.name!r} has no `verify` command in its table, and verification {why};"
            " nothing was started.",
            run(set_it, agent.name),
        )
    return agent.verify


class Planner:
    """Reads the configuration and makes commands; made once per service."""

    def __init__(
        self,
        registry: Registry,
        environ: Mapping[str, str],
        claude: Sequence[str] | None,
        threads: DirectoryThreads,
    ) -> None:
        """Read the configuration of `registry`.

        Args:
            environ: What agents inherit; also names the nesting depth and holds PATH.
            claude: The program and its first arguments; None looks for `claude` on PATH at each
                run, so that an update of the CLI needs no restart.
        """
        self.environ = environ
        self._registry = registry
        self._claude = claude
        self._threads = threads

    async def snapshot(self) -> ConfigSnapshot:
        """Read the configuration.

        Raises:
            ConfigError: It cannot be read.
        """
        registry, path = self._registry, str(self._registry.path)
        try:
            return await self._threads.run_within(_CONFIG_S, path, registry.snapshot)
        except trio.TooSlowError:
            raise ConfigError(
                f"{path} did not answer for {_CONFIG_S:g} s. Is it on a network mount that hangs?"
            ) from None

    async def command(
        self,
        agent: EffectiveAgent,
        settings: Settings,
        *,
        timeout_s: float,
        job: Job,
        resume: str | None = None,
        json_schema: str = "",
        beside: Iterable[EffectiveAgent] = (),
        asks: bool = False,
    ) -> Command | DispatchResult:
        """Make the command of a run, or return the result that says why there can be none.

        `beside` are the other agents of the same dispatch.
        """
        if agent.host is not None:
            # Its table was changed since the job was planned.
            error = f"Agent {agent.name!r} is on host {agent.host!r}; it cannot run here."
            return refused(agent.name, error)
        depth = current_depth(self.environ)
        if depth >= settings.max_dispatch_depth:
            return recursion_refused(agent.name, depth, settings.max_dispatch_depth)
        if agent.exclusive and agent.name in exclusive_above(self.environ):
            return exclusive_refused(agent.name)
        found = await self._find_program(agent.directory, timeout_s)
        if isinstance(found, StartFailure):
            return classify(not_started(agent, timeout_s, found))
        program, environ = found
        outer, token = environ.get(MARKER_VARIABLE), secrets.token_hex(8)
        try:
            return build_command(
                program,
                agent,
                new_session=None if resume else str(uuid.uuid4()),
                resume=resume,
                environ={**environ, JOB_VARIABLE: job.id, TREE_VARIABLE: job.tree or job.id},
                depth=depth,
                max_depth=settings.max_dispatch_depth,
                # A nested run carries the markers of the runs around it, so that ending one of
                # them by its marker ends the nested run too.
                marker=f"{outer}.{token}" if outer else token,
                timeout_s=timeout_s,
                json_schema=json_schema and without_dialect(json_schema),
                exclusive=[one.name for one in (agent, *beside) if one.exclusive],
                asks=asks,
            )
        except RefusedValueError as error:
            return refused_by(error, agent.name)

    async def _find_program(
        self, directory: str, timeout_s: float
    ) -> tuple[tuple[str, ...], Mapping[str, str]] | StartFailure:
        """Find the program and its environment, or return why nothing can run in `directory`."""

        def look() -> tuple[tuple[str, ...], Mapping[str, str]] | StartFailure:
            program = check_directory(directory) or find_program(self._claude, self.environ)
            if isinstance(program, StartFailure):
                return program
            if self._claude is not None:
                return program, self.environ
            return program, with_program_on_path(self.environ, program[0])

        try:
            return await self._threads.run_within(timeout_s, directory, look)
        except trio.TooSlowError:
            return no_answer(timeout_s)
