"""The run loop: one request in, one result out. Every kind of dispatch goes through it.

A dispatch ends when the scope around it ends. The deadline counts from the moment the agent is
started, not while it waits for a slot.
"""

import contextlib
import secrets
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

import msgspec
import trio

from agent_dispatch.config.claude_settings import read_claude_settings
from agent_dispatch.core import outcome
from agent_dispatch.core.command import (
    MARKER_VARIABLE,
    Command,
    RefusedValueError,
    build_command,
    current_depth,
)
from agent_dispatch.core.dialogue import refused, to_record
from agent_dispatch.core.json_schema import without_dialect
from agent_dispatch.core.outcome import classify
from agent_dispatch.core.prompt import check_request
from agent_dispatch.core.report import RunReport, StartFailure
from agent_dispatch.model.config import EffectiveAgent, Settings
from agent_dispatch.model.dialogue import DialogueRequest, Role
from agent_dispatch.model.dispatch import (
    DispatchRequest,
    DispatchResult,
    OnProgress,
    Progress,
    ignore_progress,
)
from agent_dispatch.run.dialogue import Dialogue
from agent_dispatch.run.keeper import Keeper, NoKeeper
from agent_dispatch.run.one_run import (
    OpenClaude,
    Run,
    effective_timeout_s,
    not_started,
)
from agent_dispatch.run.program import (
    check_directory,
    find_program,
    no_answer,
    with_program_on_path,
)
from agent_dispatch.run.sessions import HeldSession, Sessions
from agent_dispatch.run.slots import Slot, Slots
from agent_dispatch.run.speaker import Speaker
from agent_dispatch.run.threads import Lookouts, in_thread
from agent_dispatch.run.time_limit import TimeLimit

_SETTINGS_S = 2.0
"""How long to wait for a few small files."""


class _Work(Protocol):
    """What a slot is held for."""

    @property
    def tree_ended(self) -> bool:
        """No process of it is left."""
        ...


class Dispatcher:
    """Runs requests against agents; made once per service."""

    def __init__(
        self,
        *,
        slots: Slots,
        sessions: Sessions,
        open_claude: OpenClaude,
        environ: Mapping[str, str],
        claude: Sequence[str] | None = None,
    ) -> None:
        """Wire a dispatcher.

        Args:
            slots: The slots of this process's depth.
            sessions: The locks of resumed sessions.
            environ: What agents inherit; also names the nesting depth and holds PATH.
            claude: The program and its first arguments; None looks for `claude` on PATH at each
                run, so an update of the CLI needs no restart.
        """
        self._slots = slots
        self._sessions = sessions
        self._open_claude = open_claude
        self._environ = environ
        self._claude = claude
        self._lookouts = Lookouts()

    async def dispatch(
        self,
        request: DispatchRequest,
        agent: EffectiveAgent,
        settings: Settings,
        on_progress: OnProgress = ignore_progress,
        keeper: Keeper | None = None,
        limit: TimeLimit | None = None,
    ) -> DispatchResult:
        """Run `request` with `agent` and say what came of it.

        If cancelled, no process of the run is left when `Cancelled` leaves this call.

        Args:
            on_progress: Called with the place in line and with what the agent does.
            keeper: Told how it goes.
            limit: How long the agent may take; None: as the request or the agent says.

        Raises:
            InvalidRequestError: The request cannot be sent as it is.
            SlotsError: The limit on concurrent runs cannot be kept; nothing was started.
            SessionsError: The session to resume cannot be locked; nothing was started.
        """
        check_request(request)
        keeper = keeper or NoKeeper()
        limit = limit or TimeLimit(effective_timeout_s(request, agent))
        command = await self._prepare(
            agent,
            settings,
            keeper,
            timeout_s=limit.timeout_s,
            resume=request.session_id,
            json_schema=request.json_schema and without_dialect(request.json_schema),
        )
        if isinstance(command, DispatchResult):
            return command
        run = Run(request, agent, command, on_progress, keeper, limit)
        async with self._held_for(
            run, settings, on_progress, keeper, [command.session_id]
        ) as held_fds:
            report = await run.go(self._open_claude, held_fds)
            return classify(await self._with_settings(report))

    async def dialogue(
        self,
        request: DialogueRequest,
        agents: Mapping[Role, EffectiveAgent],
        settings: Settings,
        on_progress: OnProgress,
        keeper: Keeper,
    ) -> DispatchResult:
        """Let two agents talk, under one slot, and say what came of it as for a record.

        If cancelled, no process of the two is left when `Cancelled` leaves this call.

        Args:
            request: As `check_dialogue` gave it.
            agents: The two.
            settings: The limits.
            on_progress: Called with the place in line and with what the agents do.
            keeper: Told how it goes.

        Raises:
            SlotsError: The limit on concurrent runs cannot be kept; nothing was started.
        """
        speakers: dict[Role, Speaker] = {}
        for role, agent in agents.items():
            speaker = await self._speaker(agent, settings, keeper)
            if isinstance(speaker, DispatchResult):
                return to_record(request, refused(request, speaker))
            speakers[role] = speaker
        dialogue = Dialogue(request, speakers, on_progress, keeper)
        session_ids = [speaker.first_session_id for speaker in speakers.values()]
        async with self._held_for(dialogue, settings, on_progress, keeper, session_ids) as held_fds:
            return await dialogue.go(self._open_claude, held_fds)

    async def _with_settings(self, report: RunReport) -> RunReport:
        """Add what Claude Code's own settings say, where that explains a denial.

        The run is over and paid for, so neither a cancellation nor a disk that does not answer may
        cost its result.
        """
        if not report.seen.denials:
            return report
        with trio.move_on_after(_SETTINGS_S, shield=True):
            inherited = await in_thread(read_claude_settings, report.agent.directory, self._environ)
            return msgspec.structs.replace(report, inherited=inherited)
        return report

    def tidy(self) -> None:
        """Remove what killed processes left behind of their sessions' locks; touches the disk."""
        self._sessions.sweep()

    async def _speaker(
        self, agent: EffectiveAgent, settings: Settings, keeper: Keeper
    ) -> Speaker | DispatchResult:
        async def resume(session_id: str | None) -> Command | DispatchResult:
            return await self._prepare(
                agent, settings, keeper, timeout_s=agent.timeout_s, resume=session_id
            )

        command = await resume(None)
        return command if isinstance(command, DispatchResult) else Speaker(agent, command, resume)

    @contextlib.asynccontextmanager
    async def _held_for(
        self,
        work: _Work,
        settings: Settings,
        on_progress: OnProgress,
        keeper: Keeper,
        session_ids: Sequence[str | None],
    ) -> AsyncIterator[list[int]]:
        """Hold a slot, and the sessions, for as long as a process of `work` is left.

        Also those that it begins: their ids are known to others as soon as it runs.

        Gives the descriptors for its guards to hold.
        """

        def on_place(place: int) -> None:
            on_progress(Progress(f"Waiting for a free slot, place {place} in line"))

        def on_wait() -> None:
            on_progress(Progress("Waiting for another run of this session to end"))

        async with contextlib.AsyncExitStack() as stack:
            held: list[Slot | HeldSession] = []
            # In this order everywhere: who waits for a session keeps no slot from others.
            for session_id in filter(None, session_ids):
                session = self._sessions.hold(session_id, on_wait)
                held.append(await stack.enter_async_context(session))
            slot = self._slots.hold(settings.max_concurrency, on_place)
            held.append(await stack.enter_async_context(slot))
            for holder in held:
                holder.in_use = True
            try:
                yield [holder.fd for holder in held]
            finally:
                for holder in held:
                    holder.in_use = not work.tree_ended
                if not work.tree_ended:
                    keeper.tree_left()

    async def _prepare(
        self,
        agent: EffectiveAgent,
        settings: Settings,
        keeper: Keeper,
        *,
        timeout_s: float,
        resume: str | None = None,
        json_schema: str = "",
    ) -> Command | DispatchResult:
        """Make the command of a run, or say why there can be none."""
        depth = current_depth(self._environ)
        if depth >= settings.max_dispatch_depth:
            return outcome.recursion_refused(agent.name, depth, settings.max_dispatch_depth)
        program = await self._look(agent.directory, timeout_s)
        if isinstance(program, StartFailure):
            return classify(not_started(agent, timeout_s, program))
        environ = self._environ
        if self._claude is None:
            environ = with_program_on_path(environ, program[0])
        outer = environ.get(MARKER_VARIABLE)
        token = secrets.token_hex(8)
        try:
            return build_command(
                program,
                agent,
                new_session=None if resume else str(uuid.uuid4()),
                resume=resume,
                environ={**environ, **keeper.environ},
                depth=depth,
                max_depth=settings.max_dispatch_depth,
                # A nested run carries the marks of those around it: whoever ends one of them
                # finds it.
                marker=f"{outer}.{token}" if outer else token,
                timeout_s=timeout_s,
                json_schema=json_schema,
            )
        except RefusedValueError as error:
            return outcome.refused(agent.name, str(error))

    async def _look(self, directory: str, timeout_s: float) -> tuple[str, ...] | StartFailure:
        """Find the program, if an agent can run in `directory`; or say why there can be no run."""

        def look() -> tuple[str, ...] | StartFailure:
            return check_directory(directory) or find_program(self._claude, self._environ)

        try:
            return await self._lookouts.look(directory, look, timeout_s)
        except trio.TooSlowError:
            return no_answer(timeout_s)
