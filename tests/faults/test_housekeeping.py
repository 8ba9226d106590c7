"""An answer is given even if old records cannot be removed."""

import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from agent_dispatch.jobs.errors import JobStoreError
from agent_dispatch.jobs.retention import Collected, Retention
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.model.config import Settings
from agent_dispatch.run.housekeeping import Housekeeping
from agent_dispatch.run.open_service import open_service
from tests.run.fake_claude import INIT, FakeClaude, answer
from tests.run.stage import task


class KeepingRetention(Retention):
    """Lets nothing be removed."""

    def __init__(self, trouble: Exception) -> None:
        self._trouble = trouble

    def prune(self, call_days: float, background_days: float = 0) -> Collected:
        raise self._trouble

    def forget(self, job_id: str) -> None:
        raise JobStoreError("The job cannot be removed: Permission denied.")


@pytest.mark.parametrize("retention_days", [7, 0])
@pytest.mark.parametrize("bug", [JobStoreError("Permission denied."), ZeroDivisionError("a bug")])
async def test_an_answer_is_given_although_records_cannot_be_removed(
    tmp_path: Path,
    nursery: trio.Nursery,
    retention_days: int,
    bug: Exception,
) -> None:
    config = tmp_path / "agents.toml"
    config.write_text(
        f'[agents.infra]\ndirectory = "{tmp_path}"\n'
        f"[settings]\ncall_retention_days = {retention_days}\n"
    )
    store = JobStore(tmp_path / "jobs")
    store.retention = KeepingRetention(bug)
    async with open_service(
        environ={"AGENT_DISPATCH_CONFIG": str(config)},
        fork_server=None,
        claude=(sys.executable,),
        store=store,
        open_claude=FakeClaude((0, INIT), (0, answer("all is well"))),
    ) as service:
        result = await service.dispatch(task("go"))
        assert result.job_id is not None
        assert await service.jobs.result(result.job_id) == result
    assert (result.success, result.result) == (True, "all is well")


def broken(call_days: float, background_days: float) -> Collected:
    raise ZeroDivisionError("a bug")


def leaving(call_days: float, background_days: float) -> Collected:
    return Collected([], 0, ["live/x: a directory; left alone"])


def keeping(call_days: float, background_days: float) -> Collected:
    raise JobStoreError("Old jobs cannot be removed: Permission denied.")


def no_threads() -> None:
    raise RuntimeError("can't start new thread")


@pytest.mark.parametrize(
    ("prune", "tidy", "said"),
    [
        (broken, lambda: None, ["Bug in agent-dispatch", "Traceback", "a bug"]),
        (leaving, lambda: None, ["agent-dispatch: live/x: a directory; left alone\n"]),
        (keeping, lambda: None, ["agent-dispatch: Old jobs cannot be removed"]),
        (leaving, no_threads, ["left alone", "Bug in agent-dispatch", "new thread"]),
    ],
)
async def test_a_failure_of_housekeeping_is_reported_and_ends_nothing(
    prune: Callable[[float, float], Collected],
    tidy: Callable[[], None],
    said: list[str],
) -> None:
    reported: list[str] = []
    housekeeping = Housekeeping(prune, tidy, report=reported.append)
    await housekeeping.run_if_due(Settings())
    assert [text for text in said if text not in "".join(reported)] == []
    reported.clear()
    await housekeeping.run_if_due(Settings())  # Not due again for an hour.
    assert reported == []


async def test_a_refused_thread_for_housekeeping_is_reported_and_ends_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def refuse(*args: object) -> None:  # noqa: ASYNC124  # as `in_pool` is
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("agent_dispatch.run.housekeeping.in_pool", refuse)
    reported: list[str] = []
    await Housekeeping(leaving, lambda: None, report=reported.append).run_if_due(Settings())
    assert "can't start new thread" in "".join(reported)


async def test_cancelled_housekeeping_still_reports() -> None:
    go_on, done = threading.Event(), threading.Event()
    reported: list[str] = []

    def slow(call_days: float, background_days: float) -> Collected:
        go_on.wait(10)
        return leaving(call_days, background_days)

    housekeeping = Housekeeping(slow, done.set, report=reported.append)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(housekeeping.run_if_due, Settings())
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert reported == []
    go_on.set()
    assert await trio.to_thread.run_sync(done.wait, 10)
    assert "left alone" in "".join(reported)
