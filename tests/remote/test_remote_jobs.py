from pathlib import Path

import pytest

from agent_dispatch.jobs.ids import IdSource
from agent_dispatch.model.dispatch import DispatchRequest
from agent_dispatch.model.job import JobKind, new_job
from agent_dispatch.remote.caller.remote_jobs import RemoteJob, RemoteJobs


@pytest.mark.parametrize("content", [b"", b'{"id":"\xff"}', b"[" * 100_000])
def test_a_record_that_cannot_be_read_hides_only_its_job(tmp_path: Path, content: bytes) -> None:
    remote_jobs, ids = RemoteJobs(str(tmp_path)), IdSource()
    for _ in range(2):
        request = DispatchRequest(agent="train", task="look")
        job = new_job(ids.next(), request, 0, kind=JobKind.CALL, ref=False)
        remote_jobs.create(RemoteJob(id=job.id, host="gpu", agent="train", noted_at=0, job=job))
    whole, damaged = remote_jobs.ids()
    [file] = tmp_path.rglob(f"{damaged}.json")
    file.write_bytes(content)
    assert [known.id for known in remote_jobs.all()] == [whole]
    assert remote_jobs.read(damaged) is None
