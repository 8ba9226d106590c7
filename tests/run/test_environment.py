"""What an agent finds in its environment, whichever way it was started."""

import json
import os
from pathlib import Path

import pytest
import trio

from agent_dispatch.claude.fork_server import ForkServer
from agent_dispatch.model.job import JobStatus
from agent_dispatch.run.service import Service
from tests.run.stage import Stage, task

TELL = "read_turn(); init(); result(json.dumps(dict(os.environ)))"


@pytest.fixture
def stage(fork_server: ForkServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    monkeypatch.chdir(tmp_path)
    return Stage(fork_server, tmp_path)


async def environment_of_agent(service: Service, *, background: bool) -> dict[str, str]:
    with trio.fail_after(60):
        if not background:
            return json.loads((await service.dispatch(task("go"))).result)  # type: ignore[no-any-return]  # ours
        job = await service.submit(task("go"))
        assert (await service.jobs.wait(job.id, 50)).status is JobStatus.DONE
        return json.loads((await service.jobs.result(job.id)).result)  # type: ignore[no-any-return]  # ours


@pytest.mark.parametrize("background", [False, True])
async def test_paths_relative_to_the_caller_mean_the_same_inside_the_agent(
    background: bool, stage: Stage, tmp_path: Path
) -> None:
    stage.environ |= {
        "AGENT_DISPATCH_CONFIG": "agents.toml",
        "AGENT_DISPATCH_JOBS_DIR": "some/jobs",
        "CLAUDE_CONFIG_DIR": "claude",
    }
    async with stage.open(stage.tree(TELL)) as service:
        env = await environment_of_agent(service, background=background)
    assert env["AGENT_DISPATCH_CONFIG"] == str(tmp_path / "agents.toml")
    assert env["AGENT_DISPATCH_JOBS_DIR"] == str(tmp_path / "some" / "jobs")
    assert env["CLAUDE_CONFIG_DIR"] == str(tmp_path / "claude")


@pytest.mark.parametrize("background", [False, True])
async def test_no_agent_works_in_the_callers_repository(background: bool, stage: Stage) -> None:
    stage.environ = {
        "PATH": os.environ["PATH"],
        "AGENT_DISPATCH_CONFIG": stage.environ["AGENT_DISPATCH_CONFIG"],
        "GIT_DIR": "/caller/.git",
        "GIT_INDEX_FILE": "/caller/.git/index",
        "GIT_AUTHOR_NAME": "me",
        "CLAUDECODE": "1",
        "CLAUDE_CODE_MAX_RETRIES": "0",
    }
    async with stage.open(stage.tree(TELL)) as service:
        env = await environment_of_agent(service, background=background)
    assert {name for name in env if name.startswith(("GIT_", "CLAUDE"))} == {
        "GIT_AUTHOR_NAME",
        "CLAUDE_CODE_PRINT_BG_WAIT_CEILING_MS",
    }
