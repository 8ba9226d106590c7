"""`send`: tell a running agent something more."""

from agent_dispatch.cli.errors import report_error
from agent_dispatch.cli.jobs.display import short_id
from agent_dispatch.cli.jobs.lookup import find_job
from agent_dispatch.cli.jobs.remote import is_remote, open_remote_jobs, remote_send
from agent_dispatch.cli.next_steps import tips_for
from agent_dispatch.cli.output import write_json, write_lines
from agent_dispatch.cli.shell import Shell, open_store
from agent_dispatch.errors import DispatchError
from agent_dispatch.jobs.errors import UnknownJobError
from agent_dispatch.model.message import Sending, SendOutcome
from agent_dispatch.model.replies import Sent

_DONE, _FAILED = 0, 1


class JobEndedError(DispatchError):
    """The job has ended and takes no messages."""

    def __init__(self, sending: Sending) -> None:
        """Say how to go on with its session, if it had one."""
        steps = [] if sending.next_step is None else [sending.next_step]
        super().__init__(f"Job {short_id(sending.job_id)} has ended.", *steps)


def send(job_id: str, text: str, /, *, json: bool = False, shell: Shell) -> int:
    """Tell a running agent something more; it reads it after its current tool call.

    The exit status is 0 if the agent has it, or gets it as soon as it can.

    Args:
        job_id: The beginning or the end of its id, at least 4 digits; or `last`.
        text: What the agent should know or do.
        json: Print the outcome as JSON.
    """
    store = open_store(shell)
    full = find_job(store, job_id, open_remote_jobs(shell))
    if is_remote(full):
        sending = remote_send(shell, full, text)
    else:
        import trio

        from agent_dispatch.run.send_message import send_message as send_to_job

        sending = trio.run(send_to_job, store, full, text)
    outcome, step = sending.outcome, sending.next_step
    if json:
        answer = Sent(
            job_id=full,
            outcome=outcome,
            session_id=step.session_id if step else None,
            next="\n".join(tips_for(step)) if step else None,
        )
        write_json(shell, answer)
    elif outcome is SendOutcome.NOT_FOUND:
        report_error(shell, UnknownJobError(full), as_json=False)
    elif outcome is SendOutcome.ALREADY_TERMINAL:
        report_error(shell, JobEndedError(sending), as_json=False)
    else:
        done = "Delivered to" if outcome is SendOutcome.DELIVERED else "Queued for"
        write_lines(shell, [f"{done} job {short_id(full)}."])
    return _DONE if outcome in (SendOutcome.DELIVERED, SendOutcome.QUEUED) else _FAILED
