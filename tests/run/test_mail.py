"""The messages of other processes while a job runs, and the work that handles them."""

from pathlib import Path

import msgspec
import trio

from agent_dispatch.jobs.mailbox import Mail
from agent_dispatch.jobs.owner import create_job
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.jobs.waiting import post, wait_to_see
from agent_dispatch.model.dispatch import DispatchRequest, DispatchResult, ignore_progress
from agent_dispatch.model.job import JobKind
from agent_dispatch.run.run_job import JobRun, run_job

REQUEST = DispatchRequest(agent="infra", task="go")
DONE = DispatchResult(agent="infra", success=True, result="fine")


class Note(msgspec.Struct):
    text: str


async def test_mail_waits_for_its_handler_and_other_kinds_do_not_reach_it(tmp_path: Path) -> None:
    store, other = JobStore(tmp_path), JobStore(tmp_path)
    heard: list[str] = []

    async def work(run: JobRun) -> DispatchResult:
        job_id = run.owned.job.id
        run.owned.note_started()

        def handle(mail: Mail, note: Note) -> None:
            heard.append(note.text)
            run.owned.note(session_id=mail.id)

        await post(other, job_id, "note", Note("early"))
        await post(other, job_id, "other", Note("not for it"))
        await post(other, job_id, "note", ["of another version"])
        await post(other, job_id, "last", None)
        seen = trio.Event()
        run.on_mail("last", type(None), lambda mail, body: seen.set())
        await seen.wait()
        run.on_mail("note", Note, handle)
        sent = await post(other, job_id, "note", Note("late"))
        assert sent is not None
        await wait_to_see(other, job_id, lambda job: job.session_id == sent.id)
        return DONE

    with trio.fail_after(30):
        async with create_job(store, store.new_job(REQUEST, kind=JobKind.CALL)) as owned:
            result = await run_job(owned, work, ignore_progress, on_behalf_of="a test")
    assert result.success
    assert heard == ["early", "late"]
