"""An agent whose directory never answers, as below a FUSE mount whose daemon is stuck."""

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio

from agent_dispatch.claude.fork_server import ForkServer
from agent_dispatch.errors import DispatchError
from agent_dispatch.model.dispatch import DispatchRequest, DispatchResult
from agent_dispatch.run.service import Service
from tests.run.stage import Stage, task

ANSWER = "read_turn(); init(); result()"
MANY = 60
"""More than all threads that are shared."""


class Mount:
    """A directory at which every system call of ours waits until it is released."""

    def __init__(self, path: Path) -> None:
        path.mkdir()
        self.path = str(path)
        self.hangs = True
        self.reached = 0
        self._answers = threading.Event()

    def wait(self, path: object) -> None:
        if self.hangs and str(path).startswith(self.path):
            self.reached += 1
            self._answers.wait()

    def release(self) -> None:
        self.hangs = False
        self._answers.set()


@pytest.fixture
def mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mount]:
    mount = Mount(tmp_path / "mount")
    for name in ("scandir", "stat", "listdir", "open"):
        real = getattr(os, name)

        def hanging(
            path: object = ".", *args: object, real: Callable[..., object] = real, **more: object
        ) -> object:
            mount.wait(path)
            return real(path, *args, **more)

        monkeypatch.setattr(os, name, hanging)
    yield mount
    mount.release()


@pytest.fixture
def stage(fork_server: ForkServer, tmp_path: Path, mount: Mount) -> Stage:
    stage = Stage(fork_server, tmp_path)
    (tmp_path / "agents.toml").write_text(
        f'[agents.infra]\ndirectory = "{tmp_path}"\n'
        f'[agents.hung]\ndirectory = "{mount.path}"\ntimeout = 1\n'
    )
    return stage


def hung(number: int = 0, timeout_s: float | None = None) -> DispatchRequest:
    return DispatchRequest(agent="hung", task=f"go {number}", timeout_s=timeout_s)


async def test_its_own_call_ends_at_its_deadline_and_says_why(stage: Stage, mount: Mount) -> None:
    async with stage.open(stage.tree(ANSWER)) as service:
        with trio.fail_after(20):
            result = await service.dispatch(hung())
        assert not result.success
        assert mount.path in (result.error or "")
        assert "did not answer" in (result.error or "")
        assert result.job_id is not None
        assert (await service.jobs.get(result.job_id)).status.is_terminal


async def test_many_calls_to_it_hold_up_no_other_agent(stage: Stage, mount: Mount) -> None:
    async with stage.open(stage.tree(ANSWER)) as service, trio.open_nursery() as nursery:
        for number in range(MANY):
            nursery.start_soon(service.dispatch, hung(number, timeout_s=3000))
        with trio.fail_after(30):
            while not mount.reached:  # noqa: ASYNC110  # it is reached in a thread
                await trio.sleep(0.01)
            for number in range(3):
                assert (await service.dispatch(task(f"go {number}"))).success
        nursery.cancel_scope.cancel()
    assert mount.reached < MANY


async def test_looking_at_it_holds_up_no_other_agent(stage: Stage, mount: Mount) -> None:
    async def inspect(service: Service) -> None:
        await service.agents.inspect("hung")

    async with stage.open(stage.tree(ANSWER)) as service, trio.open_nursery() as nursery:
        for _ in range(MANY):
            nursery.start_soon(inspect, service)
            nursery.start_soon(service.agents.summaries)
        with trio.fail_after(30):
            while not mount.reached:  # noqa: ASYNC110  # it is reached in a thread
                await trio.sleep(0.01)
            assert (await service.dispatch(task("go"))).success
        nursery.cancel_scope.cancel()


async def test_it_is_used_again_once_it_answers(stage: Stage, mount: Mount) -> None:
    results: list[DispatchResult] = []
    async with stage.open(stage.tree(ANSWER)) as service:
        with trio.fail_after(30):
            for number in range(5):
                results += [await service.dispatch(hung(number))]
            mount.release()
            results.append(await service.dispatch(hung(timeout_s=20)))
    assert [result.success for result in results] == [*[False] * 5, True]


async def test_a_hung_call_can_be_cancelled(stage: Stage, mount: Mount) -> None:
    async with stage.open(stage.tree(ANSWER)) as service:
        with trio.fail_after(20), trio.move_on_after(0.3) as patience:
            await service.dispatch(hung(timeout_s=3000))
        assert patience.cancelled_caught
        (row,) = (await service.jobs.newest()).jobs
        assert row.status == "cancelled"


async def test_looking_at_it_ends_and_says_why(stage: Stage, mount: Mount) -> None:
    async with stage.open(stage.tree(ANSWER)) as service:
        with trio.fail_after(30):
            rows = {row.name: row for row in await service.agents.summaries()}
            with pytest.raises(DispatchError, match="did not answer"):
                await service.agents.inspect("hung")
    assert (rows["infra"].healthy, rows["hung"].healthy) == (True, False)
    assert "did not answer" in (rows["hung"].problem or "")
