"""Remove old records and leftovers now and then, beside a paid run.

Nothing here may end that run or delay its answer. So it works in a thread that nobody waits for,
and reports to stderr, the server's log: what it could not remove, and any bug.
"""

import contextlib
import math
import traceback
from collections.abc import Callable, Iterator

import trio

from agent_dispatch.errors import DispatchError
from agent_dispatch.jobs.log import write_to_stderr
from agent_dispatch.jobs.retention import Collected
from agent_dispatch.model.config import Settings
from agent_dispatch.threads import Pool, in_pool

_EVERY_S = 3600.0


class Housekeeping:
    """Cleans one jobs directory; made once per service."""

    def __init__(
        self,
        prune: Callable[[float, float], Collected],
        tidy: Callable[[], object],
        *,
        report: Callable[[str], object] = write_to_stderr,
    ) -> None:
        """Remove old records.

        Args:
            prune: Removes calls, and background jobs, that ended so many days ago.
            tidy: Removes what else is left of processes that were killed.
            report: Gets lines about what could not be removed, and tracebacks. Called in a thread.
        """
        self._prune = prune
        self._tidy = tidy
        self._report = report
        self._next_at = -math.inf

    async def run_if_due(self, settings: Settings) -> None:
        """Remove records older than the settings say, once an hour.

        Raises nothing but `Cancelled`; then the thread goes on and still reports.
        """
        if trio.current_time() < self._next_at:
            return
        self._next_at = trio.current_time() + _EVERY_S
        with self._reported():
            await in_pool(Pool.BULK, self._clean, settings)

    def _clean(self, settings: Settings) -> None:
        days = settings.call_retention_days, settings.background_retention_days
        with self._reported():
            for warning in self._prune(*days).warnings:
                self._report(f"agent-dispatch: {warning}\n")
        with self._reported():
            self._tidy()

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except DispatchError as error:
            self._report(f"agent-dispatch: {error}\n")
        except Exception:
            self._report(f"Bug in agent-dispatch, please report it.\n{traceback.format_exc()}")
