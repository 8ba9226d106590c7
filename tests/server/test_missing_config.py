"""A server whose `$AGENT_DISPATCH_CONFIG` names no file: an error until there is one."""

from pathlib import Path

from agent_dispatch.run.open_service import open_service
from tests.server.calling import call, call_with


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
            refused = await call_with(tool, arguments, service)
            assert refused.is_error
            assert f"AGENT_DISPATCH_CONFIG names {path}, which does not exist." in refused.text
        assert not path.exists()
        added = await call("add_agent", service, name="infra", directory=str(project))
        assert not added.is_error
        assert path.exists()
        assert not (await call("list_agents", service)).is_error
