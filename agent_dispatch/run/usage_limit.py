"""Wait for the account's usage limit to reset, in the middle of a background job.

The job stays `running`, and its worker keeps the lock of the session. Meanwhile it has no slot and
no claude, and the clock of the run is paused.
"""

import time
from datetime import UTC, datetime

import msgspec
import trio

from agent_dispatch.core.money.shares import Share, share_of
from agent_dispatch.core.next_step import resume
from agent_dispatch.core.outcome.api_failure import resets_at
from agent_dispatch.core.outcome.held import end_held_run, join_runs
from agent_dispatch.core.outcome.refusal import refused
from agent_dispatch.core.outcome.report import RunReport
from agent_dispatch.core.stream.seen import Seen
from agent_dispatch.core.stream.usage import Usage, add_usage
from agent_dispatch.model.config import EffectiveAgent
from agent_dispatch.model.dispatch import DispatchResult, ErrorType, Progress
from agent_dispatch.run.run_job import JobRun

_LOOK_EVERY_S = 30.0
"""How often to look at the wall clock: it may be set, and timers stop while the machine sleeps."""
_LEAST_CAP_USD = 0.000_001


class Holds:
    """The holds of one dispatch, and the results of the runs before them."""

    def __init__(self, run: JobRun, agent: EffectiveAgent, max_holds: int) -> None:
        """Hold `run`, a run of `agent`, at most `max_holds` times."""
        self._run = run
        self._agent = agent
        self._left = max_holds
        self._before: DispatchResult | None = None
        self._usage: Usage = {}
        self._denied = 0

    @property
    def has_held(self) -> bool:
        """A run was held."""
        return self._before is not None

    @property
    def agent(self) -> EffectiveAgent:
        """The agent with what is left of its cap."""
        return with_cap_left(self._agent, None if self._before is None else self._before.cost_usd)

    def joined(self, result: DispatchResult) -> DispatchResult:
        """Join the result of the current run with those before it."""
        if self._before is None:
            return result
        return join_runs(self._before, result, self._agent.max_budget_usd)

    def stopped(self, failure: DispatchResult) -> DispatchResult:
        """Return the result of a dispatch that could not go on after its hold."""
        return failure if self._before is None else end_held_run(self._before, failure)

    def share(self, seen: Seen, result: DispatchResult) -> Share:
        """Return the share of all runs.

        Args:
            seen: What the current run printed; nothing during a hold.
            result: The result of all runs together.
        """
        share = share_of(seen, result)
        if self._before is None:
            return share
        usage = add_usage(self._usage, share.model_usage or {}) if seen.model_usage else self._usage
        return msgspec.structs.replace(
            share, model_usage=usage or None, denied=self._denied + share.denied
        )

    def until(self, report: RunReport, result: DispatchResult, left_s: float) -> datetime | None:
        """Return when a run that ended `left_s` before its limit may go on; None: it may not."""
        return reset_to_wait_for(report, result, left_s) if self._left else None

    async def wait(self, until: datetime, report: RunReport, result: DispatchResult) -> None:
        """Wait for a reset; `result` is the result of all runs until now."""
        self._left -= 1
        self._before = result
        self._usage = add_usage(self._usage, report.seen.model_usage)
        self._denied += len(report.seen.denials)
        self._run.cancelled = self._cancelled
        await wait_for_reset(self._run, until)

    def _cancelled(self, by: str) -> DispatchResult:
        session_id = None if self._before is None else self._before.session_id
        return self.stopped(cancelled_while_held(self._agent, session_id, by))


def reset_to_wait_for(report: RunReport, result: DispatchResult, left_s: float) -> datetime | None:
    """Return when the usage limit that ended a run resets; None: the run cannot go on."""
    can_go_on = left_s > 0 and report.seen.session_id is not None
    is_at_limit = result.error_type is ErrorType.USAGE_LIMIT
    return resets_at(report) if can_go_on and is_at_limit else None


def with_cap_left(agent: EffectiveAgent, spent_usd: float | None) -> EffectiveAgent:
    """Return an agent with what is left of its cap, if that is known."""
    cap = agent.max_budget_usd
    if not cap or not spent_usd:
        return agent
    return msgspec.structs.replace(agent, max_budget_usd=max(cap - spent_usd, _LEAST_CAP_USD))


async def wait_for_reset(run: JobRun, until: datetime) -> None:
    """Wait until that time; the record of the job shows it."""
    moment = until.timestamp()
    run.owned.note(held_until=moment)
    when = f"{until.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    run.report(Progress(f"Waiting for the account's usage limit to reset, at {when}"))
    try:
        # No event tells that the wall clock has reached a time.
        while (left_s := moment - time.time()) > 0:  # noqa: ASYNC110
            await trio.sleep(min(left_s, _LOOK_EVERY_S))
    finally:
        run.owned.note(held_until=None)
    await run.go_on()


def cancelled_while_held(agent: EffectiveAgent, session_id: str | None, by: str) -> DispatchResult:
    """Return the end of a run that was cancelled while it was held."""
    text = f"Cancelled by {by} while it waited for the account's usage limit to reset."
    return refused(agent.name, text, ErrorType.CANCELLED, (resume(agent, session_id),))
