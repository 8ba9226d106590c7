"""A shell made of fakes: captured streams, and a service that gives scripted answers."""

import io
import json
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import trio

from agent_dispatch.claude.fork_server import ForkServer
from agent_dispatch.cli.app import run_cli
from agent_dispatch.cli.shell import Shell
from agent_dispatch.errors import DispatchError
from agent_dispatch.jobs.errors import UnknownJobError
from agent_dispatch.model.dialogue import DialogueRequest, DialogueResult, DialogueTurn, Role
from agent_dispatch.model.dispatch import (
    NO_OPTIONS,
    CallOptions,
    DispatchRequest,
    DispatchResult,
    Member,
    OnProgress,
    Progress,
    ignore_progress,
)
from agent_dispatch.model.job import Job, JobKind, new_job
from agent_dispatch.model.parallel import ParallelResult
from agent_dispatch.run.jobs import Jobs
from agent_dispatch.run.service import Service

JOB_ID = "0190a7b0c1d27abc8def0123456789ab"
REPOSITORY = Path(__file__).parents[2]
FAKE_CLAUDE = Path(__file__).with_name("fake_claude.py")

ANSWER = DispatchResult(
    agent="infra",
    success=True,
    result="All is well.",
    session_id="11111111-1111-4111-8111-111111111111",
    cost_usd=0.02,
    duration_ms=5000,
    num_turns=2,
)


class Stream(io.TextIOWrapper):
    """A captured standard stream."""

    def __init__(self, text: str | bytes = "", *, terminal: bool = False) -> None:
        self._terminal = terminal
        data = text.encode() if isinstance(text, str) else text
        self._captured = io.BytesIO(data)
        super().__init__(self._captured, encoding="utf-8", write_through=True)

    def isatty(self) -> bool:
        return self._terminal

    @property
    def text(self) -> str:
        """Everything that was written."""
        return self._captured.getvalue().decode()


class FakeService(Service, Jobs):
    """Answers every request with `answer`, after reporting the given progress."""

    def __init__(
        self,
        answer: DispatchResult | DispatchError = ANSWER,
        *,
        progress: Sequence[tuple[float, str]] = (),
        hangs: bool = False,
    ) -> None:
        self.jobs = self
        self.requests: list[DispatchRequest] = []
        self.dialogues: list[DialogueRequest] = []
        self.environ: Mapping[str, str] = {}
        self.claude: Sequence[str] | None = None
        self.cleaned_up = False
        self._answer = answer
        self._progress = progress
        self._hangs = hangs

    async def dispatch(
        self,
        request: DispatchRequest,
        on_progress: OnProgress = ignore_progress,
        options: CallOptions = NO_OPTIONS,
    ) -> DispatchResult:
        self.requests.append(request)
        try:
            for pause_s, message in self._progress:
                on_progress(Progress(message))
                await trio.sleep(pause_s)
            if self._hangs:
                await trio.sleep_forever()
        finally:
            self.cleaned_up = True
        if isinstance(self._answer, DispatchError):
            raise self._answer
        return self._answer

    async def parallel(
        self,
        members: Sequence[Member],
        aggregate: str = "",
        on_progress: OnProgress = ignore_progress,
    ) -> ParallelResult:
        def label(index: int) -> OnProgress:
            return lambda progress: on_progress(Progress(progress.message, member=index))

        results = [
            await self.dispatch(member.request, label(index))
            for index, member in enumerate(members)
        ]
        combined = msgspec.structs.replace(ANSWER, agent=aggregate, result="In short: well.")
        return ParallelResult(
            individual_results=results, aggregated=combined if aggregate else None
        )

    async def dialogue(
        self, request: DialogueRequest, on_progress: OnProgress = ignore_progress
    ) -> DialogueResult:
        self.dialogues.append(request)
        task = DispatchRequest(agent=request.responder, task=request.topic)
        answer = await self.dispatch(task, on_progress)
        turn = DialogueTurn(
            agent=request.responder,
            role=Role.RESPONDER,
            round=1,
            message=f"{answer.result} [RESOLVED]",
        )
        return DialogueResult(
            resolved=answer.success,
            rounds=1,
            total_cost_usd=0.02,
            total_duration_ms=5000,
            final_answer=answer.result,
            conversation=[turn],
            sessions={request.responder: answer.session_id or ""},
            job_id=JOB_ID,
            error=answer.error,
            error_type=answer.error_type,
        )

    async def submit(self, request: DispatchRequest) -> Job:
        await trio.lowlevel.checkpoint()
        self.requests.append(request)
        if isinstance(self._answer, DispatchError):
            raise self._answer
        return new_job(JOB_ID, request, 1.0, kind=JobKind.BACKGROUND)

    async def result(self, ref: str) -> DispatchResult:
        raise UnknownJobError(ref)

    @asynccontextmanager
    async def open(
        self,
        *,
        environ: Mapping[str, str],
        fork_server: ForkServer | None,
        claude: Sequence[str] | None = None,
    ) -> AsyncIterator["FakeService"]:
        self.environ, self.claude = environ, claude
        yield self


class World:
    """A home directory, and the output of the last command."""

    def __init__(self, place: Path, service: FakeService | None = None) -> None:
        self.home = place
        self.config = place / "config" / "agent-dispatch" / "agents.toml"
        self.environ = {
            "HOME": str(place),
            "PATH": "/usr/bin:/bin",
            "XDG_CONFIG_HOME": str(place / "config"),
            "TERM": "xterm",
        }
        self.service = service or FakeService()
        self.served: list[Sequence[str]] = []
        self.program = str(place / "bin" / "agent-dispatch")
        self.stdin: str | bytes = ""
        self.terminal = False
        self.out = self.err = ""

    def run(self, *argv: str) -> int:
        """Run one command line and keep what it wrote."""
        stdout, stderr = Stream(terminal=self.terminal), Stream(terminal=self.terminal)
        status = run_cli(argv, self.shell(stdout, stderr))
        stdout.flush()
        self.out, self.err = stdout.text, stderr.text
        return status

    def shell(self, stdout: Stream | None = None, stderr: Stream | None = None) -> Shell:
        """The shell that a command gets."""
        return Shell(
            environ=self.environ,
            stdin=Stream(self.stdin, terminal=self.terminal),
            stdout=stdout or Stream(terminal=self.terminal),
            stderr=stderr or Stream(terminal=self.terminal),
            program=self.program,
            start_fork_server=lambda: ForkServer(None),
            open_service=self.service.open,
            serve=self._serve,
        )

    def answer(self) -> Any:
        """The output of the last command, as JSON."""
        return msgspec.json.decode(self.out)

    def project(self, name: str, files: Mapping[str, str] | None = None) -> Path:
        """Make a project directory."""
        directory = self.home / "projects" / name
        directory.mkdir(parents=True)
        for filename, text in (files or {}).items():
            (directory / filename).parent.mkdir(parents=True, exist_ok=True)
            (directory / filename).write_text(text)
        return directory

    def install_claude(self, *faults: str) -> None:
        """Put the fake `claude` and our own console script on PATH."""
        place = self.home / "bin"
        place.mkdir(exist_ok=True)
        scripts = {
            "claude": f'exec {sys.executable} -I -S {FAKE_CLAUDE} "$@"',
            "agent-dispatch": f'cd {REPOSITORY}; exec {sys.executable} -m agent_dispatch "$@"',
        }
        for name, line in scripts.items():
            (place / name).write_text(f"#!/bin/sh\n{line}\n")
            (place / name).chmod(0o755)
        self.environ |= {"PATH": f"{place}:/usr/bin:/bin", "FAKE_CLAUDE": ",".join(faults)}

    @property
    def claude_config(self) -> Path:
        """Claude Code's own configuration file."""
        return self.home / ".claude.json"

    def registered(self) -> object:
        """Our registration in Claude Code's configuration."""
        return json.loads(self.claude_config.read_text())["mcpServers"].get("agent-dispatch")

    def register(self, registration: object) -> None:
        """Write a Claude Code configuration with this registration and unrelated keys."""
        servers = {"agent-dispatch": registration, "other": {"command": "x"}}
        self.claude_config.write_text(json.dumps({"mcpServers": servers, "kept": 1}))

    def claude_calls(self) -> list[list[str]]:
        """The calls of the fake `claude` so far."""
        record = self.home / "claude-calls"
        lines = record.read_text().splitlines() if record.exists() else []
        return [json.loads(line)["argv"] for line in lines]

    def write_config(self, text: str) -> None:
        """Write agents.toml."""
        self.config.parent.mkdir(parents=True, exist_ok=True)
        self.config.write_text(text)

    def _serve(self, argv: Sequence[str]) -> int:
        self.served.append(argv)
        return 0
