"""What the call of a job is answered when the job has ended, from its record alone."""

from agent_dispatch.core.inline import inline, refer
from agent_dispatch.core.next_step import told
from agent_dispatch.core.outcome import of_job
from agent_dispatch.model.answer import ResultRef
from agent_dispatch.model.dispatch import DispatchResult
from agent_dispatch.model.job import Job
from agent_dispatch.server.next_steps import in_tools


def answer_of(job: Job) -> DispatchResult | ResultRef:
    """Return what the tool answers whose call is this job, which has ended."""
    result = told(of_job(job), in_tools)
    return inline(result) if job.summary_chars is None else refer(result, job.summary_chars)
