"""Keys in what an agent prints: masked in all that is shown along the way, and in its record."""

from pathlib import Path

import pytest
import trio

from agent_dispatch.claude.fork_server import ForkServer
from agent_dispatch.model.dispatch import Progress
from tests.run.stage import Stage, task

KEY = "ghp_" + "q9W8e7R6t5Y4u3I2o1P0aSdFgHjKlZxCvBnM"
SPEAKS = (
    f"KEY = {KEY!r}"
    """
read_turn(); init()
def say(**block):
    emit(type="assistant", message={"content": [block]})
say(type="text", text=f"I use {KEY} now.")
say(type="tool_use", id="t", name="Bash", input={"command": f"curl -u me:{KEY} https://x.example"})
emit(type="system", subtype="permission_denied", tool_name="Bash", tool_use_id="t",
     message=f"not allowed: {KEY}")
emit(type="system", subtype="task_started", task_id="b", description=f"with {KEY}")
os.write(1, f"noise with {KEY}\\n".encode())
os.write(2, f"Error: token={KEY} is bad\\n".encode())
DENIED = [{"tool_name": "Bash", "tool_use_id": "t",
           "tool_input": {"command": f"curl -H 'Authorization: Bearer {KEY}' https://x.example"}}]
"""
)
FAILS = (
    SPEAKS
    + """
result(f"API said {KEY}", is_error=True, terminal_reason="api_error", api_error_status=400,
       permission_denials=DENIED)
sys.exit(1)
"""
)
VANISHES = SPEAKS + "sys.exit(3)"
SUCCEEDS = SPEAKS + 'result("all is well", permission_denials=DENIED)'


@pytest.fixture
def stage(fork_server: ForkServer, tmp_path: Path) -> Stage:
    return Stage(fork_server, tmp_path)


@pytest.mark.parametrize("script", [FAILS, VANISHES, SUCCEEDS])
async def test_no_key_that_an_agent_prints_is_shown_or_recorded(stage: Stage, script: str) -> None:
    told: list[Progress] = []
    with trio.fail_after(60):
        async with stage.open(stage.tree(script)) as service:
            result = await service.dispatch(task("go"), told.append)
            record = (stage.directory / "jobs" / f"{result.job_id}.json").read_text()
    assert KEY[4:8] not in record.replace(f"API said {KEY}", "")
    assert KEY[4:8] not in "".join(progress.message for progress in told)
    assert KEY[4:8] not in (result.error or "") + (result.hint or "")
    assert "ghp_…" in record


async def test_prompts_and_results_are_recorded_as_they_are(stage: Stage) -> None:
    script = "prompt = read_turn(); init(); result('you said ' + prompt)"
    with trio.fail_after(60):
        async with stage.open(stage.tree(script)) as service:
            result = await service.dispatch(task(f"use {KEY}"))
            assert result.job_id is not None
            job = await service.jobs.get(result.job_id)
    assert result.result == f"you said use {KEY}"
    assert job.task == f"use {KEY}"
