"""A server whose `$AGENT_DISPATCH_CONFIG` names no file: an error until there is one."""

from pathlib import Path
from typing import Any

import trio

from agent_dispatch.run.service import Service, open_service
from agent_dispatch.server.calls.toolbox import Answer, Toolbox
from agent_dispatch.server.mcp_server import TOOLS


async def _ignore(_number: float, _message: str) -> None:
    await trio.lowlevel.checkpoint()


async def _call(service: Service, tool: str, **arguments: Any) -> Answer:
    return await Toolbox(service, TOOLS).call(tool, arguments, _ignore)


async def test_tools_answer_the_error_until_add_agent_creates_the_file(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    project = tmp_path / "infra"
    project.mkdir()
    environ = {"HOME": str(tmp_path), "AGENT_DISPATCH_CONFIG": str(path)}
    async with open_service(environ=environ, fork_server=None) as service:
        for tool, arguments in (
            ("list_agents", {}),
            ("dispatch", {"agent": "infra", "task": "x"}),
            ("dispatch_jobs", {}),
            ("update_agent", {"name": "infra", "timeout": 5}),
        ):
            refused = await _call(service, tool, **arguments)
            assert refused.is_error
            assert f"AGENT_DISPATCH_CONFIG names {path}, which does not exist." in refused.text
        assert not path.exists()
        added = await _call(service, "add_agent", name="infra", directory=str(project))
        assert not added.is_error
        assert path.exists()
        assert not (await _call(service, "list_agents")).is_error
