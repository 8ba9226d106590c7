"""Dispatches, through the whole service, to an agent whose claude is a script."""

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import trio

from agent_dispatch.claude.fork_server import ForkServer
from agent_dispatch.claude.launcher import Launcher
from agent_dispatch.config.registry import Registry
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.model.dispatch import DispatchRequest, DispatchResult
from agent_dispatch.run.accounts import Accounts
from agent_dispatch.run.limits import Limits
from agent_dispatch.run.open_service import open_service
from agent_dispatch.run.parts import RunParts
from agent_dispatch.run.plan import Planner
from agent_dispatch.run.runner import Runner
from agent_dispatch.run.service import Service
from agent_dispatch.run.turns import OpenClaude
from agent_dispatch.run.work_tree import WorkTrees
from agent_dispatch.threads import DirectoryThreads
from tests.claude.trees import Tree

SESSION = "11111111-2222-4333-8444-555555555555"

CLAUDE = f"""
SESSION = {SESSION!r}
"""
CLAUDE += """
import json
def emit(**event):
    os.write(1, json.dumps(event).encode() + b"\\n")
def init():
    emit(type="system", subtype="init", session_id=SESSION)
def result(text="fine", **more):
    emit(**{"type": "result", "subtype": "success", "is_error": False, "num_turns": 1,
            "result": text, "session_id": SESSION, "terminal_reason": "completed", **more})
def read_turn():
    return json.loads(sys.stdin.readline())["message"]["content"]
"""


class Stage:
    """Dispatches to an agent whose claude is a script."""

    def __init__(self, fork_server: ForkServer | None, directory: Path) -> None:
        self._fork_server = fork_server
        self.directory = directory
        self.environ = {**os.environ, "AGENT_DISPATCH_CONFIG": str(directory / "agents.toml")}

    def configure(self, timeout_s: float = 60, settings: str = "") -> None:
        (self.directory / "agents.toml").write_text(
            f'[agents.infra]\ndirectory = "{self.directory}"\ntimeout = {timeout_s}\n'
            f"[settings]\n{settings}\n"
        )

    def open(self, tree: Tree, timeout_s: float = 60) -> AbstractAsyncContextManager[Service]:
        if not (self.directory / "agents.toml").exists():
            self.configure(timeout_s)
        return open_service(
            environ=self.environ,
            fork_server=self._fork_server,
            claude=tree.command.argv,
        )

    @staticmethod
    def tree(script: str) -> Tree:
        return Tree(CLAUDE + script)

    async def play(
        self, script: str, request: DispatchRequest | None = None, timeout_s: float = 60
    ) -> DispatchResult:
        tree = Tree(CLAUDE + script)
        with trio.fail_after(60):
            async with self.open(tree, timeout_s) as service:
                outcome = await service.dispatch(request or task("go"))
        assert tree.living() == []
        return outcome


def task(text: str, context: str = "") -> DispatchRequest:
    return DispatchRequest(agent="infra", task=text, context=context)


def make_runner(
    directory: Path,
    open_claude: OpenClaude,
    *,
    program: Sequence[str] | None = ("/bin/sh",),
    environ: Mapping[str, str] | None = None,
) -> tuple[Runner, Limits]:
    """A runner with records below `directory`, and its limits."""
    environ = {"PATH": "/bin"} if environ is None else environ
    store, limits, threads = JobStore(directory / "jobs"), Limits(directory, 0), DirectoryThreads()
    parts = RunParts(
        planner=Planner(Registry(directory / "agents.toml"), environ, program, threads),
        limits=limits,
        accounts=Accounts(store.ledger, environ),
        open_claude=open_claude,
        launcher=Launcher(None),
        work_trees=WorkTrees(Launcher(None), threads),
    )
    return Runner(store=store, parts=parts, parent=None), limits
