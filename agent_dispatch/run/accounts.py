"""The cost of a job's runs: booked before the first starts, entered when the last has ended."""

import re
import time
from collections.abc import Callable, Mapping, Sequence

import msgspec
import trio
from msgspec import UNSET

from agent_dispatch.core.money.ceilings import booked_usd, cap_usd
from agent_dispatch.core.money.shares import Share, account_limits, ledger_line
from agent_dispatch.core.outcome.refusal import refused
from agent_dispatch.errors import DispatchError
from agent_dispatch.jobs.ids import is_job_id, is_time_ordered
from agent_dispatch.jobs.ledger import Booking, Ledger
from agent_dispatch.model.config import EffectiveAgent, Settings
from agent_dispatch.model.dispatch import DispatchResult, ErrorType
from agent_dispatch.model.job import Job
from agent_dispatch.model.ledger import TREE_VARIABLE, AccountLimits, LedgerLine
from agent_dispatch.model.next_step import run

_SETTLE_S = 20.0
"""How long an answer waits for its cost to be entered: longer than a disk is busy."""
_MAX_NAME_CHARS = 200
"""Of a name that others choose, so that a booking stays small."""
_THREADS = 4
"""How many runs are entered at once: more would only wait for the lock."""
_TRACEPARENT = re.compile(r"[0-9A-Za-z-]{1,200}")

Close = Callable[[DispatchResult], Sequence[Share | None]]
"""Returns the share of each booked run in the result of the job; None: it was never started."""


def tree_around(environ: Mapping[str, str]) -> str | None:
    """Return the tree of runs that this process belongs to; None outside of any agent."""
    tree = environ.get(TREE_VARIABLE, "")
    return tree if is_time_ordered(tree) else None


def capped(agent: EffectiveAgent, settings: Settings) -> EffectiveAgent:
    """Return the agent with the cap of its run: its own, or what a ceiling allows."""
    cap = cap_usd(agent.max_budget_usd, settings)
    if cap == agent.max_budget_usd:
        return agent
    return msgspec.structs.replace(agent, max_budget_usd=cap)


class Account:
    """The bookings of one job."""

    def __init__(
        self,
        ledger: Ledger,
        settings: Settings,
        bookings: Sequence[Booking],
        hints: Sequence[str],
        close: Close,
        threads: trio.CapacityLimiter,
    ) -> None:
        self._ledger = ledger
        self._settings = settings
        self._bookings = bookings
        self._hints = hints
        self._close = close
        self._threads = threads

    async def settle(self, result: DispatchResult) -> DispatchResult:
        """Enter what the runs cost; return the result of the job with remarks about its cost.

        Takes no longer than `_SETTLE_S`, and then goes on in a thread. The caller shields it.
        """
        now = time.time()
        shares = self._close(result)
        lines: list[LedgerLine | None] = [
            None if share is None else ledger_line(booking.line, share, now)
            for booking, share in zip(self._bookings, shares, strict=True)
        ]
        rate_limits = [share.rate_limit for share in shares if share and share.rate_limit]
        limits = account_limits(rate_limits[-1], now) if rate_limits else None
        remarks = [*self._hints] if any(lines) else []
        try:
            with trio.fail_after(_SETTLE_S):
                remarks += await trio.to_thread.run_sync(
                    self._enter,
                    lines,
                    limits,
                    abandon_on_cancel=True,
                    limiter=self._threads,
                )
        except trio.TooSlowError:
            remarks.append(f"The cost was not entered in the ledger within {_SETTLE_S:g} s.")
        except DispatchError as error:
            remarks.append(str(error))
        if not remarks:
            return result
        hint = " ".join(filter(None, (result.hint, *remarks)))
        return msgspec.structs.replace(result, hint=hint)

    def _enter(self, lines: Sequence[LedgerLine | None], limits: AccountLimits | None) -> list[str]:
        hints = self._ledger.settle(self._bookings, lines, self._settings)
        if limits is not None:
            try:
                self._ledger.note_limits(limits)
            except DispatchError as error:
                return [*hints, str(error)]
        return hints


class Accounts:
    """Books runs in a ledger; made once per service."""

    def __init__(self, ledger: Ledger, environ: Mapping[str, str]) -> None:
        """Use `ledger`; `environ` may name the trace that runs belong to."""
        self._ledger = ledger
        traceparent = environ.get("TRACEPARENT", "")
        self._traceparent = traceparent if _TRACEPARENT.fullmatch(traceparent) else UNSET
        # Separate, so that no paid answer waits behind runs that want to start.
        self._booking = trio.CapacityLimiter(1)
        self._settling = trio.CapacityLimiter(_THREADS)

    async def book(
        self, job: Job, agents: Sequence[EffectiveAgent], settings: Settings, close: Close
    ) -> Account | DispatchResult:
        """Book runs of these agents, or return the result that says why they may not start.

        A cancellation takes effect only when it is known whether they are booked.

        Raises:
            JobStoreError: They cannot be booked; nothing may be started.
        """
        now = time.time()
        lines = [
            LedgerLine(
                at=now,
                job_id=job.id,
                agent=agent.name,
                # In a dialogue, the requester is the caller of the responder.
                caller=None if job.caller == agent.name else job.caller[:_MAX_NAME_CHARS] or None,
                session_id=(job.session_id or "")[:_MAX_NAME_CHARS] or None,
                # From the environment, which an agent may have changed.
                parent=job.parent if is_job_id(job.parent or "") else None,
                tree=job.tree or job.id,
                booked_usd=booked_usd(agent.max_budget_usd, settings),
                error_type=ErrorType.LOST,
                traceparent=self._traceparent,
            )
            for agent in agents
        ]
        booked = await trio.to_thread.run_sync(
            self._ledger.book, lines, settings, limiter=self._booking
        )
        if booked.refusal is not None:
            look = run("agent-dispatch stats --since 24h")
            return refused(agents[0].name, booked.refusal, ErrorType.BUDGET, (look,))
        return Account(self._ledger, settings, booked.bookings, booked.hints, close, self._settling)
