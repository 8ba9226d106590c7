"""Records that cannot be removed are no reason to withhold an answer."""

import sys
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from agent_dispatch.dispatch.background import Workers
from agent_dispatch.dispatch.dispatcher import Dispatcher
from agent_dispatch.dispatch.service import Service
from agent_dispatch.dispatch.sessions import Sessions
from agent_dispatch.dispatch.slots import Slots
from agent_dispatch.jobs.errors import JobStoreError
from agent_dispatch.jobs.file_store import FileJobStore
from agent_dispatch.project.registry import Registry
from tests.dispatch.fake_claude import INIT, FakeClaude, answer
from tests.dispatch.stage import task


class KeepingStore(FileJobStore):
    """Lets nothing be removed."""

    def prune_calls(self, retention_days: float) -> list[str]:
        raise JobStoreError("Old jobs cannot be removed: Permission denied.")

    def forget(self, job_id: str) -> None:
        raise JobStoreError("The job cannot be removed: Permission denied.")


@pytest.mark.parametrize("retention_days", [7, 0])
async def test_an_answer_is_given_although_records_cannot_be_removed(
    tmp_path: Path, autojump_clock: MockClock, nursery: trio.Nursery, retention_days: int
) -> None:
    config = tmp_path / "agents.toml"
    config.write_text(
        f'[agents.infra]\ndirectory = "{tmp_path}"\n'
        f"[settings]\ncall_retention_days = {retention_days}\n"
    )
    service = Service(
        registry=Registry(config),
        dispatcher=Dispatcher(
            slots=Slots(tmp_path / "slots", 0),
            sessions=Sessions(tmp_path / "sessions"),
            open_claude=FakeClaude((0, INIT), (1, answer("all is well"))),
            environ={},
            claude=(sys.executable,),
        ),
        store=KeepingStore(tmp_path / "jobs"),
        workers=Workers(None, {}, None),
        nursery=nursery,
    )
    result = await service.dispatch(task("go"))
    assert (result.success, result.result) == (True, "all is well")
    assert result.job_id is not None
    assert await service.result(result.job_id) == result
