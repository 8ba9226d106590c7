"""Whether a call may resume a session, as far as the records of jobs say."""

from agent_dispatch.core.dialogue.record import agent_of_session
from agent_dispatch.errors import DispatchError, InvalidRequestError
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.model.job import Job
from agent_dispatch.remote.caller.remote_jobs import RemoteJobs
from agent_dispatch.run.plan import Plan
from agent_dispatch.threads import in_thread


async def check_session_agent(store: JobStore, remote_jobs: RemoteJobs, plan: Plan) -> None:
    """Refuse to resume the conversation of another agent.

    It would go on in this agent's directory, with its rights. A conversation stays on its host.

    Raises:
        InvalidRequestError: A record says that the session belongs to another agent.
    """
    if (session_id := plan.request.session_id) is None:
        return
    noted = await in_thread(remote_jobs.of_session, session_id)
    if noted is not None:
        if (noted.host, noted.agent) != (plan.agent.host, plan.agent.name):
            raise InvalidRequestError(
                f"Session {session_id} belongs to agent {noted.agent!r} on host {noted.host!r} (job"
                f" {noted.shown_id}), not to {plan.agent.name!r}; nothing was started. Resume it"
                " with that agent, or leave the session out."
            )
        return

    def is_of(job: Job) -> bool:
        return agent_of_session(job, session_id) is not None

    job = await in_thread(store.lister.find, session_id.lower(), is_of)
    owner = None if job is None else agent_of_session(job, session_id)
    if job is not None and owner is not None and owner != plan.agent.name:
        raise InvalidRequestError(
            f"Session {session_id} belongs to agent {owner!r} (job {job.id}), not to"
            f" {plan.agent.name!r}; nothing was started. Resume it with agent {owner!r}, or leave"
            " the session out, to begin a new conversation."
        )


async def check_session_not_around(
    store: JobStore, parent: str | None, session_id: str | None
) -> None:
    """Refuse to resume the conversation in which this call is made: it would wait for itself.

    Args:
        parent: The job whose agent makes the call; None: no agent makes it.

    Raises:
        InvalidRequestError: It is the session of a surrounding job.
    """
    job_id = parent
    while session_id is not None and job_id is not None:
        try:
            job = await in_thread(store.read, job_id)
        except DispatchError:
            return  # It cannot be read from here; the deadline of the run ends the wait.
        if (job.session_id or "").lower() == session_id.lower():
            raise InvalidRequestError(
                f"Session {session_id} is the conversation in which this call is made (job"
                f" {job.id}), so it cannot answer before this call has ended. Leave session_id"
                " out, to ask in a new conversation."
            )
        job_id = job.parent
