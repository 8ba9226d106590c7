"""What a run leaves undone, with children that end as Claude Code does."""

import json
from pathlib import Path

import msgspec
import pytest
import trio

from agent_dispatch.claude.fork_server import ForkServer
from agent_dispatch.errors import SchemaError
from agent_dispatch.model.dialogue import DialogueRequest
from agent_dispatch.model.dispatch import DispatchRequest, ErrorType
from tests.run.stage import Stage, task

BACKGROUND = """
import signal
def task(subtype, **more):
    emit(type="system", subtype=subtype, task_id="b1", description="tests", **more)
def alive(*ids):
    emit(type="system", subtype="background_tasks_changed", tasks=[{"task_id": i} for i in ids])
def on_term(*_):
    # As 2.1.330 does, in this order.
    task("task_notification", status="stopped")
    task("task_updated", patch={"status": "killed"})
    alive()
    os._exit(143)
signal.signal(signal.SIGTERM, on_term)
read_turn(); init()
alive("b1"); task("task_started", is_backgrounded=True)
result("The tests are running. [RESOLVED]")
while True:
    signal.pause()
"""
HUNG_HOOK = """
import signal
def hook(subtype):
    emit(type="system", subtype=subtype, hook_id="h", hook_name="SessionStart:startup")
def on_term(*_):
    hook("hook_response")
    os._exit(143)
signal.signal(signal.SIGTERM, on_term)
read_turn(); hook("hook_started")
while True:
    signal.pause()
"""


@pytest.fixture
def stage(fork_server: ForkServer, tmp_path: Path) -> Stage:
    return Stage(fork_server, tmp_path)


async def test_background_work_stopped_at_the_deadline_is_told_and_not_kept(stage: Stage) -> None:
    tree = stage.tree(BACKGROUND)
    with trio.fail_after(60):
        async with stage.open(tree, timeout_s=2) as service:
            first = await service.dispatch(task("run the tests"))
            second = await service.dispatch(task("run the tests"))
    assert first.success
    assert "1 background task(s) after it did not finish: the time was up" in (first.hint or "")
    assert not second.cached
    assert second.job_id != first.job_id


async def test_background_work_stopped_in_a_dialogue_is_told(stage: Stage) -> None:
    stage.configure(timeout_s=2)
    toml = stage.directory / "agents.toml"
    toml.write_text(f'[agents.db]\ndirectory = "{stage.directory}"\n{toml.read_text()}')
    request = DialogueRequest(requester="db", responder="infra", topic="Green?")
    with trio.fail_after(60):
        async with stage.open(stage.tree(BACKGROUND)) as service:
            outcome = await service.dialogue(request)
    assert outcome.resolved
    assert "infra: The answer was complete, but 1 background task(s)" in (outcome.hint or "")


async def test_a_hook_that_is_ended_at_the_deadline_is_to_blame(stage: Stage) -> None:
    late = await stage.play(HUNG_HOOK, timeout_s=1)
    assert late.error_type is ErrorType.TIMEOUT
    assert "SessionStart:startup" in (late.error or "")


async def test_claude_gets_a_schema_without_its_dialect_and_the_record_keeps_it(
    stage: Stage,
) -> None:
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object"}
    request = msgspec.structs.replace(task("go"), json_schema=json.dumps(schema))
    script = "read_turn(); init(); result(structured_output=[a for a in sys.argv if 'schema' in a])"
    with trio.fail_after(60):
        async with stage.open(stage.tree(script)) as service:
            result = await service.dispatch(request)
            job = await service.jobs.get(result.job_id or "")
    assert result.parsed_result == ['--json-schema={"type":"object"}']
    assert job.json_schema == request.json_schema


@pytest.mark.parametrize("background", [True, False])
async def test_no_job_is_made_for_a_schema_that_claude_does_not_take(
    stage: Stage, background: bool
) -> None:
    request = DispatchRequest(agent="infra", task="go", json_schema='{"type": "objekt"}')
    with trio.fail_after(60):
        async with stage.open(stage.tree("stay()")) as service:
            with pytest.raises(SchemaError, match="objekt"):
                await (service.submit(request) if background else service.dispatch(request))
            assert not list(stage.directory.glob("jobs/*.json"))


async def test_a_schema_that_only_claude_refuses_is_not_a_broken_installation(
    stage: Stage,
) -> None:
    request = msgspec.structs.replace(task("go"), json_schema='{"type": "object"}')
    script = "os.write(2, b'Error: --json-schema is not a valid JSON Schema: odd\\n'); sys.exit(1)"
    result = await stage.play(script, request)
    assert result.error_type is ErrorType.SCHEMA
    assert "odd" in (result.error or "")
    assert "doctor" not in (result.error or "")
