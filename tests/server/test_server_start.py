"""What a server does by itself when its service opens."""

import os
import time
from pathlib import Path

import trio

from agent_dispatch.jobs.ids import IdSource
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.model.job import JobKind
from tests.jobs.support import end, running
from tests.server.processes import PRODUCT, serving
from tests.server.test_front_door import CALL


async def test_old_background_jobs_are_removed_when_a_server_starts(tmp_path: Path) -> None:
    config = tmp_path / "agents.toml"
    config.write_text("[settings]\nbackground_retention_days = 1\n")
    days_ago = time.time() - 2 * 86_400
    ids = IdSource(lambda: int(days_ago * 1e9))
    store = JobStore(tmp_path / "jobs", now=lambda: days_ago, ids=ids)
    claim = running(store, JobKind.BACKGROUND)
    end(store, claim, now=days_ago)
    job_id = claim.job.id
    record = tmp_path / "jobs" / f"{job_id}.json"
    environ = {
        "AGENT_DISPATCH_CONFIG": str(config),
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
    }
    async with serving("serve", module=PRODUCT, env=environ) as server:
        await server.shake_hands()
        await server.say(CALL)
        assert (await server.hear())["id"] == CALL["id"]
        with trio.fail_after(15):
            while record.exists():  # noqa: ASYNC110  # another process removes it
                await trio.sleep(0.02)
