"""The messages of other processes while a job runs."""

from pathlib import Path

import trio

from agent_dispatch.jobs.owner import create_job
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.jobs.waiting import post, wait_to_see
from agent_dispatch.model.dispatch import DispatchRequest, DispatchResult, ignore_progress
from agent_dispatch.model.job import JobKind
from agent_dispatch.model.message import MESSAGE_MAIL, MessageBody
from agent_dispatch.run.run_job import JobRun, run_job

REQUEST = DispatchRequest(agent="infra", task="go")
DONE = DispatchResult(agent="infra", success=True, result="fine")


async def test_mail_of_other_kinds_or_with_other_bodies_is_ignored(tmp_path: Path) -> None:
    store, other = JobStore(tmp_path), JobStore(tmp_path)
    texts: list[str] = []

    async def work(run: JobRun) -> DispatchResult:
        job_id = run.owned.job.id
        await post(other, job_id, "unknown", MessageBody("of no kind that we know"))
        await post(other, job_id, MESSAGE_MAIL, ["of another version"])
        await post(other, job_id, MESSAGE_MAIL, MessageBody("hello"))
        job = await wait_to_see(other, job_id, lambda job: bool(job.messages))
        texts.extend(message.text for message in job.messages or ())
        return DONE

    with trio.fail_after(30):
        async with create_job(store, store.new_job(REQUEST, kind=JobKind.CALL)) as owned:
            result = await run_job(owned, work, ignore_progress, on_behalf_of="a test")
    assert result.success
    assert texts == ["hello"]
