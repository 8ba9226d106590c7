import json
from pathlib import Path

import msgspec
import pytest
import trio

from agent_dispatch.model.dispatch import DispatchResult, ErrorType
from agent_dispatch.model.parallel import ParallelResult
from tests.cli.support import ANSWER, JOB_ID, FakeService, World

TASKS = [{"agent": "infra", "task": "one"}, {"agent": "infra", "task": "two", "caller": "me"}]


@pytest.fixture
def tasks(tmp_path: Path) -> str:
    path = tmp_path / "tasks.json"
    path.write_text(json.dumps(TASKS))
    return str(path)


def failing(error_type: ErrorType) -> FakeService:
    return FakeService(
        DispatchResult(agent="infra", success=False, result="", error="no", error_type=error_type)
    )


def test_answers_are_printed_in_the_order_of_the_file(world: World, tasks: str) -> None:
    assert world.run("parallel", tasks) == 0
    assert world.out == "## 1. infra\n\nAll is well.\n\n## 2. infra\n\nAll is well.\n"
    assert "2 tasks, 0 failed, 0 denied, $0.04" in world.err
    assert [request.task for request in world.service.requests] == ["one", "two"]
    assert world.service.requests[1].caller == "me"


def test_a_dash_reads_the_list_from_stdin(world: World) -> None:
    world.stdin = json.dumps(TASKS)
    assert world.run("parallel", "-") == 0
    assert len(world.service.requests) == 2


def test_json_is_what_the_tool_answers(world: World, tasks: str) -> None:
    assert world.run("parallel", tasks, "--json") == 0
    assert json.loads(world.out) == [json.loads(msgspec.json.encode(ANSWER))] * 2


def test_one_agent_combines_the_answers(world: World, tasks: str) -> None:
    assert world.run("parallel", tasks, "--aggregate", "db") == 0
    assert world.out.endswith("## All together, by db\n\nIn short: well.\n")
    assert world.run("parallel", tasks, "--aggregate=db", "--json") == 0
    answer = json.loads(world.out)
    assert list(answer) == ["individual_results", "aggregated"]
    assert answer["aggregated"]["agent"] == "db"


def test_what_was_paid_for_once_is_added_up_once(world: World, tasks: str) -> None:
    world.service = FakeService(msgspec.structs.replace(ANSWER, job_id=JOB_ID, cost_usd=0.25))
    assert world.run("parallel", tasks) == 0
    assert world.err.endswith("2 tasks, 0 failed, 0 denied, $0.25\n")


def test_the_last_line_counts_what_failed_and_what_was_denied(world: World, tasks: str) -> None:
    results = [
        ANSWER,
        msgspec.structs.replace(ANSWER, denied_tools=["Bash"], cost_usd=0.01),
        DispatchResult(
            agent="db",
            success=False,
            result="",
            error="no",
            error_type=ErrorType.PERMISSION,
            denied_tools=["Bash"],
        ),
    ]

    class Three(FakeService):
        async def parallel(self, *_args: object, **_kwargs: object) -> ParallelResult:
            await trio.lowlevel.checkpoint()
            return ParallelResult(individual_results=results)

    world.service = Three()
    assert world.run("parallel", tasks) == 1
    assert world.err.splitlines()[-1] == "3 tasks, 1 failed, 1 denied, $0.03"


@pytest.mark.parametrize(
    ("error_type", "status"), [(ErrorType.CLI_ERROR, 1), (ErrorType.TIMEOUT, 124)]
)
def test_a_failure_is_told_by_the_exit_status(
    world: World, tasks: str, error_type: ErrorType, status: int
) -> None:
    world.service = failing(error_type)
    assert world.run("parallel", tasks) == status
    assert "2 failed" in world.err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[{", "dispatches is not JSON"),
        ("[]", "dispatches has 0 items"),
        ('[{"agent": "infra"}]', "dispatches[0]: Missing argument 'task'"),
    ],
)
def test_a_wrong_list_starts_nothing(world: World, text: str, said: str) -> None:
    world.stdin = text
    assert world.run("parallel", "-") == 1
    assert said in world.err
    assert world.service.requests == []


def test_a_file_that_is_missing_is_named(world: World) -> None:
    assert world.run("parallel", "nowhere.json") == 1
    assert "The list of tasks in nowhere.json cannot be read: No such file" in world.err


def test_each_agent_has_its_own_progress(world: World, tasks: str) -> None:
    world.service = FakeService(progress=[(0, "Using tool: Read"), (0, "Using tool: Bash")])
    world.run("parallel", tasks, "--stream")
    lines = [line for line in world.err.splitlines() if line.startswith("Using")]
    assert lines == ["Using tool: Read", "Using tool: Bash"] * 2
