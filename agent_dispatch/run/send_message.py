"""Send a message to the agent of a running job, from any process."""

import trio

from agent_dispatch.core.request.checks import check_message
from agent_dispatch.errors import InvalidRequestError
from agent_dispatch.jobs.errors import UnknownJobError
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.jobs.waiting import post, settled, wait_to_see
from agent_dispatch.model.job import Job, JobStatus
from agent_dispatch.model.message import MESSAGE_MAIL, MessageBody, Sending, SendOutcome
from agent_dispatch.model.next_step import NextStep, StepKind

DELIVERY_S = 5.0
"""How long to wait until a message is delivered: a tool may run much longer."""
BEHIND_S = 0.5
"""For how long the record of a run that has just begun may still say that it is pending."""


async def send_message(
    store: JobStore,
    job_id: str,
    text: str,
    *,
    patience_s: float = DELIVERY_S,
    behind_s: float = BEHIND_S,
) -> Sending:
    """Send a message to the agent of a job, and wait a moment for its delivery.

    If cancelled, the message may still be delivered.

    Args:
        patience_s: Seconds to wait for the delivery; after that, the message stays queued.
        behind_s: The same for a job whose record says that it is pending.

    Raises:
        InvalidRequestError: Not an id, a job of several agents, or the text cannot be sent.
        DispatchError: The job cannot be read, or the message cannot be recorded.
    """
    check_message(text)
    try:
        job = await settled(store, job_id)
        if job.agents:
            raise InvalidRequestError(
                f"Job {job.id} has several agents ({', '.join(job.agents)[:200]}), so it takes no"
                " messages. Send to a job of one agent."
            )
        mail = None
        if not job.status.is_terminal:
            mail = await post(store, job_id, MESSAGE_MAIL, MessageBody(text))
        if mail is None:
            return _ended(await settled(store, job_id), text)
    except UnknownJobError:
        return Sending(job_id=job_id, outcome=SendOutcome.NOT_FOUND)
    queued = Sending(job_id=job_id, outcome=SendOutcome.QUEUED)
    if job.held_until is not None:
        return queued  # No process takes lines now.
    if job.status is JobStatus.PENDING:
        patience_s = min(patience_s, behind_s)
    with trio.move_on_after(patience_s):
        try:
            job = await wait_to_see(store, job_id, lambda job: _is_delivered(job, mail.id))
        except UnknownJobError:  # It has ended, and was removed at once.
            return _ended(job, text)
        if _is_delivered(job, mail.id):
            return Sending(job_id=job_id, outcome=SendOutcome.DELIVERED)
        return _ended(job, text)
    return queued


def _is_delivered(job: Job, message_id: str) -> bool:
    return any(m.id == message_id and m.delivered_at is not None for m in job.messages or ())


def _ended(job: Job, text: str) -> Sending:
    step = NextStep(kind=StepKind.ASK, agent=job.agent, session_id=job.session_id, task=text)
    return Sending(job_id=job.id, outcome=SendOutcome.ALREADY_TERMINAL, next_step=step)
