"""Whose conversation a session is: no agent goes on with one of another agent."""

from pathlib import Path

import msgspec
import pytest
import trio

from agent_dispatch.claude.fork_server import ForkServer
from agent_dispatch.errors import InvalidRequestError
from agent_dispatch.model.dispatch import DispatchRequest, Member
from tests.run.stage import SESSION, Stage, task

UNKNOWN = "99999999-2222-4333-8444-555555555555"
ANSWER = "read_turn(); init(); result()"


@pytest.fixture
def stage(fork_server: ForkServer, tmp_path: Path) -> Stage:
    stage = Stage(fork_server, tmp_path)
    tables = (f'[agents.{name}]\ndirectory = "{tmp_path}"\n' for name in ("infra", "other"))
    (tmp_path / "agents.toml").write_text("".join(tables))
    return stage


def resume(session_id: str, agent: str) -> DispatchRequest:
    return msgspec.structs.replace(task("go on"), agent=agent, session_id=session_id)


@pytest.mark.parametrize("session_id", [SESSION, SESSION.upper()])
async def test_a_session_is_resumed_by_its_own_agent_only(session_id: str, stage: Stage) -> None:
    async with stage.open(stage.tree(ANSWER)) as service:
        with trio.fail_after(60):
            begun = await service.dispatch(task("go"))
            before = len((await service.jobs.newest()).jobs)
            for start in (service.dispatch, service.submit):
                with pytest.raises(InvalidRequestError) as refused:
                    await start(resume(session_id, "other"))
                assert "belongs to agent 'infra'" in str(refused.value)
                assert str(begun.job_id) in str(refused.value)
            assert len((await service.jobs.newest()).jobs) == before
            assert (await service.dispatch(resume(session_id, "infra"))).success


async def test_in_a_parallel_call_it_is_the_error_of_that_item(stage: Stage) -> None:
    async with stage.open(stage.tree(ANSWER)) as service:
        with trio.fail_after(60):
            await service.dispatch(task("go"))
            members = [Member(request=resume(SESSION, name)) for name in ("other", "infra")]
            results = (await service.parallel(members)).individual_results
    assert "belongs to agent 'infra'" in (results[0].error or "")
    assert results[1].success


async def test_a_session_that_no_record_knows_is_resumed(stage: Stage) -> None:
    async with stage.open(stage.tree(ANSWER)) as service:
        with trio.fail_after(60):
            await service.dispatch(task(f"What is session {UNKNOWN} about?"))
            assert (await service.dispatch(resume(UNKNOWN, "other"))).success
