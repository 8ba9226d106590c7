"""One installation in a separate directory: an agent with a scripted claude, and its jobs."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from agent_dispatch.jobs.store import JobStore
from agent_dispatch.jobs.waiting import wait_until_over
from agent_dispatch.model.job import Job, JobStatus
from tests import warm
from tests.census import Census
from tests.claude.trees import PRELUDE
from tests.e2e.mcp_client import McpClient
from tests.run.stage import CLAUDE
from tests.warm import WarmProcess

PRODUCT = (sys.executable, "-P", "-m", "agent_dispatch")
"""The product's command line, without arguments."""


class House(Census):
    """Its servers and commands are real processes; the test watches its jobs from outside."""

    def __init__(self, directory: Path, script: str, *, settings: str = "") -> None:
        """Set up `directory`.

        Args:
            directory: Existing and empty.
            script: What claude does: Python, with the words of `stage.CLAUDE`, and `gate()`, which
                returns when `open_gate` was called.
            settings: Of `agents.toml`.
        """
        super().__init__()
        self._gate = directory / "gate"
        os.mkfifo(self._gate)
        programs = directory / "bin"
        programs.mkdir()
        self._claude = programs / "claude"
        words = f"token = sys.argv[0]\ndef gate():\n    open({str(self._gate)!r}).read()\n"
        self._claude.write_text(f"#!{sys.executable} -IS\n{PRELUDE}{CLAUDE}{words}{script}\n")
        self._claude.chmod(0o755)
        self.config = directory / "config" / "agents.toml"
        self.config.parent.mkdir(mode=0o700)
        project = directory / "project"
        project.mkdir()
        self.config.write_text(f'[agents.infra]\ndirectory = "{project}"\n[settings]\n{settings}\n')
        self.config.chmod(0o600)
        self.jobs = self.config.parent / "jobs"
        self.store = JobStore(self.jobs)
        self.environ = {
            "PATH": f"{programs}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(directory),
            "LANG": "C.UTF-8",
            "AGENT_DISPATCH_CONFIG": str(self.config),
            **self.mark,
        }

    @asynccontextmanager
    async def serving(self, *prefix: str, handshake: bool = True) -> AsyncIterator[McpClient]:
        """A server after its handshake, in a separate process group; killed when the block ends.

        Args:
            prefix: A program that becomes the server, which is then a new Python. Without one, the
                server is forked from a process that has imported everything.
            handshake: False: without one.
        """
        process: trio.Process | WarmProcess
        if not prefix:
            process = warm.start(
                "agent_dispatch",
                "serve",
                stderr=None,
                env=self.environ,
                cwd=self.config.parent,
                new_session=True,
            )
        else:
            process = await trio.lowlevel.open_process(
                [*prefix, *PRODUCT, "serve"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=self.environ,
                cwd=self.config.parent,
                start_new_session=True,
            )
        try:
            client = McpClient(process)
            if handshake:
                await client.initialize()
            yield client
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()

    async def command(self, *arguments: str) -> str:
        """The stdout of a command of the product."""
        done = await warm.run("agent_dispatch", *arguments, env=self.environ)
        return done.stdout

    def agents(self) -> list[int]:
        """The living processes of the scripted claude, with those that it forked."""
        return [pid for pid, arguments in self.alive().items() if str(self._claude) in arguments]

    async def only_agents_left(self, pids: list[int], within_s: float = 3) -> None:
        """Wait until exactly these processes of agents are alive."""
        with trio.move_on_after(within_s):
            while sorted(self.agents()) != sorted(pids):  # noqa: ASYNC110  # not our children
                await trio.sleep(0.02)
        assert sorted(self.agents()) == sorted(pids)

    async def with_session(self, job_id: str) -> Job:
        """Wait, as any observer does, until a job runs and its conversation is recorded."""
        with trio.fail_after(20):
            while (job := self.store.settle(job_id)).session_id is None:  # noqa: ASYNC110
                await trio.sleep(0.01)
        return job

    async def newest_running(self, beside: str) -> str:
        """Wait until a job other than `beside` runs; returns its id."""
        with trio.fail_after(20):
            while True:
                rows = self.store.lister.newest(status=JobStatus.RUNNING).jobs
                if ids := [row.id for row in rows if row.id != beside]:
                    return ids[0]
                await trio.sleep(0.01)

    async def over(self, job_id: str, within_s: float = 20) -> Job:
        """Wait until a job has ended."""
        with trio.fail_after(within_s):
            return await wait_until_over(self.store, job_id)

    async def open_gate(self) -> None:
        """Let the agents at the gate continue; waits until there is one."""
        # Abandoned if no agent comes, because open() cannot be interrupted.
        await trio.to_thread.run_sync(self._gate.write_text, "", abandon_on_cancel=True)
