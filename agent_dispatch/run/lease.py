"""The worker's part of a job whose caller is on another machine."""

import contextlib

import trio

from agent_dispatch.errors import DispatchError
from agent_dispatch.jobs.errors import JobStoreError
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.run.threads import in_thread

_LOOK_EVERY_S = 1.0


async def begin_for_remote_caller(store: JobStore, job_id: str) -> None:
    """Note that this worker begins the job, so that no repeated submission starts it again.

    Raises:
        JobStoreError: That cannot be noted; the job must not begin.
    """
    try:
        await in_thread(store.submissions.begin, job_id)
    except OSError as error:
        raise JobStoreError(
            f"The job was not started, because it cannot be noted that it begins: {error}."
        ) from error


async def end_with_lease(store: JobStore, job_id: str) -> None:
    """Have a job cancelled when its caller was not heard for as long as its lease says.

    Returns at once for a job without a lease. Raises nothing but `Cancelled`: a lease that cannot
    be read now is looked at again, as the run must not end because of that.
    """
    lease = store.lease(job_id)
    is_leased = await in_thread(lease.exists)
    while is_leased:
        await trio.sleep(_LOOK_EVERY_S)
        with contextlib.suppress(OSError):
            if (lease_s := await in_thread(lease.overdue_s)) is not None:
                by = f"its lease: its caller was not heard for {lease_s:g} s"
                with contextlib.suppress(DispatchError):
                    # The owner, this process, is rung and ends the run.
                    await in_thread(store.request_cancel, job_id, by)
                    return
