"""What runs book and leave in the ledger, through the whole service, with real processes."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import trio

from agent_dispatch.claude.fork_server import ForkServer
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.model.dialogue import DialogueRequest
from agent_dispatch.model.dispatch import DispatchRequest, ErrorType, Member
from agent_dispatch.model.ledger import TREE_VARIABLE, LedgerLine
from agent_dispatch.run.open_service import open_service
from agent_dispatch.run.service import Service
from tests.run.stage import SESSION, Stage, task

COSTS = """
read_turn()
init()
result(total_cost_usd=9.0, model_usage_since_last_result={
    "opus": {"costUSD": 0.02, "inputTokens": 10, "outputTokens": 5}, "haiku": {"costUSD": 0.01}})
"""
DOLLAR_A_DAY = "max_cost_per_day_usd = 1"


@pytest.fixture
def stage(fork_server: ForkServer, tmp_path: Path) -> Stage:
    return Stage(fork_server, tmp_path)


def ledger(stage: Stage) -> list[LedgerLine]:
    """All lines, the oldest first; no run is open."""
    jobs = stage.directory / "jobs"
    assert list((jobs / "ledger" / "open").iterdir()) == []
    return list(JobStore(jobs).ledger.lines(0))[::-1]


async def ended(service: Service, job_id: str) -> Any:
    with trio.fail_after(60):
        return await service.jobs.wait(job_id, 60)


async def test_a_run_leaves_a_line_with_all_that_is_known_of_it(stage: Stage) -> None:
    stage.environ["TRACEPARENT"] = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    request = DispatchRequest(agent="infra", task="go", caller="frontend")
    began = time.time()
    result = await stage.play(COSTS, request)
    (line,) = ledger(stage)
    assert (line.job_id, line.agent, line.caller) == (result.job_id, "infra", "frontend")
    assert (line.tree, line.parent, line.session_id) == (result.job_id, None, SESSION)
    assert (line.cost_usd, line.booked_usd, line.success) == (0.03, 0, True)
    assert (line.error_type, line.tool_calls, line.duration_ms) == (None, 0, result.duration_ms)
    assert line.model_usage is not None
    assert {name: used.cost_usd for name, used in line.model_usage.items()} == {
        "opus": 0.02,
        "haiku": 0.01,
    }
    assert line.traceparent == stage.environ["TRACEPARENT"]
    assert began <= line.at <= time.time()
    assert result.hint is None


async def test_names_of_any_length_hide_no_booking(stage: Stage) -> None:
    stage.configure(settings="max_runs_per_tree = 1")
    stage.environ["AGENT_DISPATCH_JOB"] = "j" * 100_000
    request = DispatchRequest(agent="infra", task="go", caller="c" * 100_000)
    script = f"""
read_turn()
init()
name = os.listdir({str(stage.directory / "jobs" / "ledger" / "open")!r})
result(str(len(open({str(stage.directory / "jobs" / "ledger" / "open")!r} + "/" + name[0]).read())))
"""
    result = await stage.play(script, request)
    assert int(result.result) < 1_000
    (line,) = ledger(stage)
    assert (line.caller, line.parent) == ("c" * 200, None)


async def test_a_failed_run_of_unknown_cost_leaves_a_line_that_says_so(stage: Stage) -> None:
    result = await stage.play("read_turn(); init(); sys.exit(3)")
    (line,) = ledger(stage)
    assert (line.success, line.error_type, line.cost_usd) == (False, "cli_error", None)
    assert line.session_id == result.session_id


async def test_cached_answers_and_runs_that_never_started_leave_no_line(stage: Stage) -> None:
    async with stage.open(stage.tree(COSTS)) as service:
        await service.dispatch(task("go"))
        assert (await service.dispatch(task("go"))).cached
    stage.configure(settings="max_dispatch_depth = 0")
    async with stage.open(stage.tree(COSTS)) as service:
        assert (await service.dispatch(task("stop"))).error_type is ErrorType.RECURSION
    stage.configure()
    missing = open_service(environ=stage.environ, fork_server=None, claude=["./no-such-program"])
    async with missing as service:
        assert (await service.dispatch(task("start"))).error_type is ErrorType.NOT_FOUND
    assert len(ledger(stage)) == 1


async def test_without_a_cap_a_run_gets_a_tenth_of_the_ceiling(stage: Stage) -> None:
    stage.configure(settings=DOLLAR_A_DAY)
    script = "read_turn(); init(); result(' '.join(sys.argv), total_cost_usd=0.5)"
    result = await stage.play(script)
    assert "--max-budget-usd=0.1" in result.result
    (line,) = ledger(stage)
    assert (line.booked_usd, line.cost_usd) == (0.1, 0.5)
    assert result.budget_exceeded


async def test_a_cap_that_does_not_fit_is_refused_before_anything_starts(stage: Stage) -> None:
    stage.configure(settings=f"default_max_budget_usd = 0.4\n{DOLLAR_A_DAY}")
    script = "read_turn(); init(); result(total_cost_usd=0.41)"
    async with stage.open(stage.tree(script)) as service:
        first, second = [await service.dispatch(task(text)) for text in ("a", "b")]
        third = await service.dispatch(task("c"))
        submitted = await service.submit(task("d"))
        job = await ended(service, submitted.id)
    assert (first.hint, second.success) == (None, True)
    assert "max_cost_per_day_usd: 82% is spent, $0.82 of $1." in (second.hint or "")
    assert (third.success, third.error_type) == (False, ErrorType.BUDGET)
    assert "max_cost_per_day_usd is $1; $0.82 is spent today" in (third.error or "")
    assert third.job_id is not None
    assert (job.status, job.error_type) == ("failed", ErrorType.BUDGET)
    assert len(ledger(stage)) == 2


async def test_what_runs_inside_an_agent_belongs_to_its_tree(stage: Stage) -> None:
    stage.configure(settings="max_runs_per_tree = 2")
    script = f"read_turn(); init(); result(os.environ[{TREE_VARIABLE!r}], total_cost_usd=0)"
    outer = await stage.play(script)
    assert outer.result == outer.job_id
    stage.environ |= {TREE_VARIABLE: outer.result, "AGENT_DISPATCH_JOB": outer.result}
    async with stage.open(stage.tree(script)) as service:
        submitted = await service.submit(task("inner"))
        job = await ended(service, submitted.id)
    del stage.environ["AGENT_DISPATCH_JOB"]  # It has ended, and would end what is inside it.
    async with stage.open(stage.tree(script)) as service:
        refused = await service.dispatch(task("too much"))
    assert job.result.result == outer.job_id
    assert "max_runs_per_tree: 100% is spent" in job.result.hint
    assert refused.error_type is ErrorType.BUDGET
    lines = ledger(stage)
    assert [(line.parent, line.tree) for line in lines] == [
        (None, outer.job_id),
        (outer.job_id, outer.job_id),
    ]


async def test_calls_from_outside_begin_trees_of_their_own(stage: Stage) -> None:
    stage.configure(settings="max_runs_per_tree = 3")
    async with stage.open(stage.tree(COSTS)) as service:
        members = [Member(request=task(text)) for text in ("a", "b")]
        for _ in range(2):
            done = await service.parallel(members, aggregate="infra")
            assert done.aggregated is not None
            assert done.aggregated.success
            await service.cache_clear()
        more = [Member(request=task(text)) for text in ("c", "d")]
        refused = await service.parallel([*members, *more], aggregate="infra")
    lines = ledger(stage)
    assert [len({line.tree for line in lines[at : at + 3]}) for at in (0, 3)] == [1, 1]
    assert len({line.tree for line in lines}) == 3
    kinds = sorted(str(result.error_type) for result in refused.individual_results)
    assert kinds == ["None", "None", "None", "budget"]
    assert refused.aggregated is not None
    assert refused.aggregated.error_type is ErrorType.BUDGET


async def test_each_agent_of_a_dialogue_has_its_line(stage: Stage) -> None:
    (stage.directory / "agents.toml").write_text(
        "".join(f'[agents.{name}]\ndirectory = "{stage.directory}"\n' for name in ("asks", "knows"))
        + f"[settings]\n{DOLLAR_A_DAY}\n"
    )
    script = """
first = True
while line := sys.stdin.readline():
    text = json.loads(line)["message"]["content"]
    init()
    usage = {"opus": {"costUSD": 0.01}}
    result("hm" if first else "[RESOLVED]", model_usage_since_last_result=usage)
    first = False
"""
    request = DialogueRequest(requester="asks", responder="knows", topic="why")
    async with stage.open(stage.tree(script)) as service:
        done = await service.dialogue(request)
    assert done.resolved
    lines = {line.agent: line for line in ledger(stage)}
    assert {name: (line.cost_usd, line.caller) for name, line in lines.items()} == {
        "knows": (0.02, "asks"),
        "asks": (0.01, None),
    }
    assert {line.job_id for line in lines.values()} == {done.job_id}


async def test_a_dialogue_needs_room_for_both(stage: Stage) -> None:
    (stage.directory / "agents.toml").write_text(
        "".join(f'[agents.{name}]\ndirectory = "{stage.directory}"\n' for name in ("asks", "knows"))
        + "[settings]\nmax_runs_per_tree = 1\n"
    )
    request = DialogueRequest(requester="asks", responder="knows", topic="why")
    async with stage.open(stage.tree(COSTS)) as service:
        done = await service.dialogue(request)
    assert (done.error_type, done.conversation) == (ErrorType.BUDGET, [])
    assert "needs 2 more" in (done.error or "")


async def test_a_cancelled_run_leaves_a_line(stage: Stage) -> None:
    async with stage.open(stage.tree("read_turn(); init(); stay(ignore=False)")) as service:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(service.dispatch, task("go"))
                while not any(job.session_id for job in (await service.jobs.newest()).jobs):  # noqa: ASYNC110
                    await trio.sleep(0.02)
                nursery.cancel_scope.cancel()
    (line,) = ledger(stage)
    assert (line.error_type, line.cost_usd) == ("cancelled", None)


async def test_the_share_of_the_account_in_use_is_kept(stage: Stage) -> None:
    info = {
        "status": "allowed_warning",
        "unifiedWindows": {"five_hour": {"utilization": 0.92, "resetsAt": 1795351976}},
    }
    event = json.dumps({"type": "rate_limit_event", "rate_limit_info": info})
    await stage.play(f"read_turn(); init(); emit(**json.loads({event!r})); result()")
    limits = JobStore(stage.directory / "jobs").ledger.limits()
    assert limits is not None
    assert [(window.name, window.used) for window in limits.windows] == [("five_hour", 0.92)]
