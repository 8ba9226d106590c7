import json
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from agent_dispatch.claude.fork_server import ForkServer
from agent_dispatch.core.request.parallel import read_members
from agent_dispatch.errors import DispatchError
from agent_dispatch.model.dispatch import (
    DispatchResult,
    ErrorType,
    Member,
    OnProgress,
    Progress,
    ignore_progress,
)
from agent_dispatch.model.job import JobStatus
from agent_dispatch.run.parallel import dispatch_parallel
from agent_dispatch.run.service import Service
from tests.run.stage import Stage

BY_TASK = """
task = read_turn()
init()
words = task.split()
if "combine" in task.lower() and "Context:" in task:
    if "break the synthesis" in task:
        sys.exit(3)
    result("all: " + str([w for w in dict.fromkeys(words) if w.startswith("echo-")]))
elif words[0] == "hang":
    fork_away("setsid")
    stay()
elif words[0] == "die":
    sys.exit(3)
elif words[0] == "late":
    time.sleep(0.3)
    result(words[1])
elif words[0] == "large":
    result("z" * 3_000_000)
else:
    open("runs", "a").write("x")
    result(words[1])
"""


@pytest.fixture
def stage(fork_server: ForkServer, tmp_path: Path) -> Stage:
    stage = Stage(fork_server, tmp_path)
    stage.configure(settings="max_concurrency = 3")
    return stage


def ask(*tasks: str, **fields: object) -> list[Member]:
    return read_members(json.dumps([{"agent": "infra", "task": task, **fields} for task in tasks]))


async def test_all_are_answered_in_order_and_recorded(stage: Stage) -> None:
    async with stage.open(stage.tree(BY_TASK)) as service:
        with trio.fail_after(30):
            tasks = ["late echo-1", "do echo-2", "late echo-3", "do echo-4", "do echo-5"]
            outcome = await service.parallel(ask(*tasks))
        results = outcome.individual_results
        assert [r.result for r in results] == ["echo-1", "echo-2", "echo-3", "echo-4", "echo-5"]
        assert len({r.job_id for r in results}) == 5
        listed = (await service.jobs.newest()).jobs
        assert [job.status for job in listed] == [JobStatus.DONE] * 5
    assert outcome.aggregated is None


async def test_one_that_fails_fails_alone(stage: Stage) -> None:
    async with stage.open(stage.tree(BY_TASK)) as service:
        with trio.fail_after(30):
            outcome = await service.parallel(ask("do echo-1", "die", "do echo-3"))
    first, second, third = outcome.individual_results
    assert (first.success, second.success, third.success) == (True, False, True)
    assert second.error_type is ErrorType.CLI_ERROR


async def test_a_bug_that_ends_one_ends_no_other(caplog: pytest.LogCaptureFixture) -> None:
    async def dispatch(member: Member, report: OnProgress) -> DispatchResult:
        await trio.lowlevel.checkpoint()
        if member.request.task == "break":
            raise RuntimeError("nobody has thought of this")
        return DispatchResult(agent="infra", success=True, result="paid for")

    outcome = await dispatch_parallel(ask("go", "break", "go"), "", dispatch, ignore_progress)
    first, second, third = outcome.individual_results
    assert (first.result, third.result) == ("paid for", "paid for")
    assert not second.success
    assert "nobody has thought of this" in (second.error or "")
    assert "RuntimeError" in caplog.text


async def test_identical_items_share_one_run(stage: Stage) -> None:
    async with stage.open(stage.tree(BY_TASK)) as service:
        with trio.fail_after(30):
            outcome = await service.parallel(ask("do echo-1", "do echo-1", "do echo-1"))
    assert [r.result for r in outcome.individual_results] == ["echo-1"] * 3
    assert len({r.job_id for r in outcome.individual_results}) == 1
    assert (stage.directory / "runs").read_text() == "x"


async def test_one_agent_combines_the_answers(stage: Stage) -> None:
    async with stage.open(stage.tree(BY_TASK)) as service:
        with trio.fail_after(30):
            outcome = await service.parallel(ask("do echo-1", "do echo-2"), "infra")
    assert outcome.aggregated is not None
    assert outcome.aggregated.result == "all: ['echo-1', 'echo-2']"
    assert len(outcome.individual_results) == 2


async def test_answers_of_megabytes_are_combined_too(stage: Stage) -> None:
    async with stage.open(stage.tree(BY_TASK)) as service:
        with trio.fail_after(30):
            outcome = await service.parallel(ask("large one", "do echo-2"), "infra")
    assert outcome.aggregated is not None
    assert outcome.aggregated.result == "all: ['echo-2']"
    assert len(outcome.individual_results[0].result) == 3_000_000


async def test_a_failed_synthesis_costs_no_answer(stage: Stage) -> None:
    async with stage.open(stage.tree(BY_TASK)) as service:
        with trio.fail_after(30):
            outcome = await service.parallel(ask("do echo-1 break the synthesis"), "infra")
    assert [r.result for r in outcome.individual_results] == ["echo-1"]
    assert outcome.aggregated is not None
    assert not outcome.aggregated.success
    assert outcome.aggregated.job_id is not None


async def test_nothing_is_combined_when_nothing_succeeded(stage: Stage) -> None:
    async with stage.open(stage.tree(BY_TASK)) as service:
        with trio.fail_after(30):
            outcome = await service.parallel(ask("die", "die now"), "infra")
        assert len((await service.jobs.newest()).jobs) == 2
    assert outcome.aggregated is not None
    assert "None of the dispatches succeeded" in (outcome.aggregated.error or "")


async def test_all_items_are_checked_before_any_starts(stage: Stage) -> None:
    async with stage.open(stage.tree(BY_TASK)) as service:
        items = ask("do echo-1") + read_members([{"agent": "nobody", "task": "x"}])
        with pytest.raises(DispatchError, match=r"dispatches\[1\]: Unknown agent: 'nobody'"):
            await service.parallel(items)
        with pytest.raises(DispatchError, match="Unknown agent: 'nobody'"):
            await service.parallel(ask("do echo-1"), "nobody")
        assert (await service.jobs.newest()).jobs == []


async def test_of_many_wrong_items_a_few_are_named_and_the_others_counted(stage: Stage) -> None:
    asked = read_members([{"agent": "nobody", "task": "x"}] * 1000)
    async with stage.open(stage.tree(BY_TASK)) as service:
        with pytest.raises(DispatchError) as caught:
            await service.parallel(asked)
    assert "dispatches[4]: Unknown agent: 'nobody'" in str(caught.value)
    assert str(caught.value).endswith("and 995 more items are wrong")
    assert len(str(caught.value)) < 1000


async def test_progress_says_whose_it_is(stage: Stage) -> None:
    told: list[str] = []
    async with stage.open(stage.tree(BY_TASK)) as service:
        with trio.fail_after(30):
            await service.parallel(
                ask("do echo-1", "die"), on_progress=lambda p: told.append(p.message)
            )
    assert any(line.startswith("[1/2] infra · started · job ") for line in told)
    assert any(line.startswith("[1/2] infra · done") for line in told)
    assert any(line.startswith("[2/2] infra · failed (cli_error)") for line in told)
    assert told[-1].endswith(", 2 of 2 ended")


async def test_cancelling_the_call_ends_all_and_frees_the_slots(stage: Stage) -> None:
    tree = stage.tree(BY_TASK)
    async with stage.open(tree) as service:
        members = ask("hang 1", "hang 2", "hang 3", "hang 4", "hang 5")
        await cancel_when(service, members, lambda: len(tree.living()) >= 6)
        assert tree.living() == []
        listed = (await service.jobs.newest()).jobs
        assert {job.status for job in listed} == {JobStatus.CANCELLED}
        with trio.fail_after(5):
            outcome = await service.parallel(ask("do echo-1", "do echo-2", "do echo-3"))
        assert all(result.success for result in outcome.individual_results)


async def cancel_when(service: Service, members: list[Member], reached: Callable[[], bool]) -> None:
    moved = trio.Event()

    def on_progress(progress: Progress) -> None:
        if "Started Claude Code" in progress.message:
            moved.set()

    with trio.fail_after(20), trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(service.parallel, members, "", on_progress)
            await moved.wait()
            # Grandchildren tell nobody that they run.
            while not reached():  # noqa: ASYNC110
                await trio.sleep(0.01)
            scope.cancel()
