"""A server that outlives the environment it was started from, as an upgrade leaves it."""

import json
import sys
from pathlib import Path

from tests.server.processes import serving

PROGRAM = [sys.executable, "-m", "agent_dispatch", "serve"]

# Nothing can be imported any more once the file is there.
SITE = """
import os, sys
class Gone:
    def find_spec(self, name, path=None, target=None):
        if os.path.exists(GATE):
            raise ModuleNotFoundError(f"gone: {name}")
sys.meta_path.insert(0, Gone())
"""


async def test_every_tool_works_without_further_imports(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(f"GATE = {str(gate)!r}\n{SITE}")
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "README.md").write_text("# P\n\nA project of tests.\n")
    project = str(tmp_path / "project")
    environ = {
        "HOME": str(tmp_path),
        "AGENT_DISPATCH_CONFIG": str(tmp_path / "agents.toml"),
        "PYTHONPATH": str(tmp_path / "site"),
        "PATH": str(tmp_path / "bin"),
    }
    (tmp_path / "agents.toml").write_text("[settings]\nmcp_may_widen_permissions = true\n")
    (tmp_path / "bin").mkdir()
    claude = tmp_path / "bin" / "claude"
    claude.write_text("#!/bin/sh\nexit 1\n")
    claude.chmod(0o755)
    task: dict[str, object] = {"agent": "p", "task": "x"}
    calls: list[tuple[str, dict[str, object]]] = [
        ("add_agent", {"name": "p", "directory": project, "allowed_tools": "Read,Bash(ls:*)"}),
        ("add_agent", {"name": "q", "directory": project}),
        ("add_agent", {"name": "r/", "directory": project}),
        ("list_agents", {}),
        ("inspect_agent", {"name": "p"}),
        ("inspect_agent", {"name": "pp"}),
        ("update_agent", {"name": "p", "permission_mode": "acceptEdit", "description": "ü\n"}),
        ("dispatch", task),
        ("dispatch", {**task, "json_schema": '{"type": "object"}'}),
        ("dispatch_stream", task),
        ("dispatch_session", {**task, "session_id": "11111111-1111-4111-8111-111111111111"}),
        ("dispatch_parallel", {"dispatches": json.dumps([task, task])}),
        ("dispatch_dialogue", {"requester": "p", "responder": "q", "topic": "x"}),
        ("dispatch_jobs", {}),
        ("dispatch_status", {"job_id": "0" * 32}),
        ("dispatch_wait", {"job_id": "0" * 32}),
        ("dispatch_cancel", {"job_id": "0" * 32}),
        ("fetch_result", {"ref": "0" * 32}),
        ("dispatch_gc", {"max_age_days": 0}),
        ("cache_stats", {}),
        ("cache_clear", {}),
        ("remove_agent", {"name": "q"}),
    ]
    async with serving(command=PROGRAM, env=environ) as server:
        await server.shake_hands()
        await server.say(server.request("first", "tools/call", name="list_agents"))
        await server.hear_answer("first")
        gate.touch()
        for number, (tool, arguments) in enumerate(calls):
            await server.say(server.request(number, "tools/call", name=tool, arguments=arguments))
            answer = await server.hear_answer(number)
            assert "gone: " not in json.dumps(answer), (tool, answer, server.stderr)
            assert "Bug in" not in json.dumps(answer), (tool, answer, server.stderr)
        await server.say(server.request("job", "tools/call", name="dispatch_async", arguments=task))
        submitted = await server.hear_answer("job")
        [content] = submitted["result"]["content"]
        assert "job_id" in content["text"], (content, server.stderr)
        job_id = json.loads(content["text"])["job_id"]
        await server.say(
            server.request("w", "tools/call", name="dispatch_wait", arguments={"job_id": job_id})
        )
        waited = json.loads((await server.hear_answer("w"))["result"]["content"][0]["text"])
        assert waited["status"] == "failed"
        assert "gone: " not in json.dumps(waited)
        assert "gone: " not in server.stderr
    text = (tmp_path / "agents.toml").read_text()
    assert '"Bash(ls:*)"' in text
    assert "agents.q" not in text


async def test_a_session_that_called_no_tool_before_is_told_to_reconnect(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    (tmp_path / "sitecustomize.py").write_text(f"GATE = {str(gate)!r}\n{SITE}")
    async with serving(command=PROGRAM, env={"PYTHONPATH": str(tmp_path)}) as server:
        await server.shake_hands()
        gate.touch()
        # In one write, because the server leaves behind its first answer.
        await server.say(
            server.request(1, "tools/call", name="list_agents"), server.request(2, "tools/list")
        )
        assert "reconnect" in (await server.hear_answer(1))["error"]["message"]
        assert (await server.wait_exit())[0] == 1
        assert "Traceback" not in server.stderr
