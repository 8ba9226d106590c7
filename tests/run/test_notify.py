"""The user's `notify` command: what it is told, and that nothing depends on it."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import trio

from agent_dispatch.claude.fork_server import ForkServer
from agent_dispatch.config.registry import Registry
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.model.event import Event
from agent_dispatch.model.job import JobKind
from agent_dispatch.model.question import Question, Verdict
from agent_dispatch.run.notify import Notifier
from tests.jobs.support import DONE, end, running
from tests.run.stage import Stage, task
from tests.run.test_questions import ANSWERS, ASK, ASKS_ONCE, Run

EVENT = Event(event="done", job_id="1" * 32, agent="infra", success=True, summary="fine")


class Told:
    """A notify command that keeps what it is told."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "told"
        self._file.touch()
        self._script = directory / "notify.py"
        self._script.write_text(
            f"import sys\nopen({str(self._file)!r}, 'a').write(sys.stdin.read())\n"
        )

    @property
    def setting(self) -> str:
        return f"notify = {json.dumps([sys.executable, '-I', '-S', str(self._script)])}\n"

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._file.read_text().splitlines()]

    async def until(self, count: int) -> list[dict[str, Any]]:
        with trio.fail_after(30):
            while len(self.events) < count:  # noqa: ASYNC110  # as the person told would see it
                await trio.sleep(0.02)
        return self.events


@pytest.fixture
def told(tmp_path: Path) -> Told:
    return Told(tmp_path)


@pytest.fixture
def stage(fork_server: ForkServer, tmp_path: Path) -> Stage:
    return Stage(fork_server, tmp_path)


async def test_the_end_of_a_background_job_is_told(stage: Stage, told: Told) -> None:
    stage.configure(settings=told.setting)
    long = "ghp_abcdefghijkl " + "x" * 300
    with trio.fail_after(60):
        async with stage.open(stage.tree(f"read_turn(); init(); result({long!r})")) as service:
            job = await service.submit(task("go"))
            (event,) = await told.until(1)
    assert event == {
        "event": "done",
        "job_id": job.id,
        "agent": "infra",
        "success": True,
        "summary": "ghp_… " + "x" * 183,
    }


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("read_turn(); init(); sys.exit(3)", "failed"),
        ("read_turn(); init(); stay(ignore=False)", "cancelled"),
    ],
)
async def test_a_job_that_did_not_succeed_is_told_with_its_error(
    script: str, expected: str, stage: Stage, told: Told
) -> None:
    stage.configure(settings=told.setting)
    with trio.fail_after(60):
        async with stage.open(stage.tree(script)) as service:
            job = await service.submit(task("go"))
            if expected == "cancelled":
                await service.jobs.cancel(job.id)
            (event,) = await told.until(1)
    assert event["event"] == expected
    assert event["success"] is False
    assert event["error_type"]
    assert event["summary"]


async def test_a_question_is_told_for_every_job_and_the_end_of_a_call_is_not(
    stage: Stage, told: Told
) -> None:
    stage.configure(settings=ASK + told.setting)
    run = Run(stage)
    with trio.fail_after(60):
        async with (
            stage.open(stage.tree(ASKS_ONCE + ANSWERS)) as service,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(run.go, service, task("go"))
            (event,) = await told.until(1)
            await run.answer(event["question"]["id"], Verdict.ALLOW)
    assert event == {
        "event": "question",
        "job_id": run.job_id,
        "agent": "infra",
        "question": {
            "id": event["question"]["id"],
            "tool": "Bash",
            "input": {"command": "touch a"},
            "asked_at": event["question"]["asked_at"],
            "agent": "infra",
        },
    }
    assert len(told.events) == 1


@pytest.mark.parametrize("kind", list(JobKind))
def test_a_lost_job_is_told_once_by_the_reader_that_finds_it(
    kind: JobKind, told: Told, tmp_path: Path
) -> None:
    config = tmp_path / "agents.toml"
    config.write_text(f"[settings]\n{told.setting}")
    notifier = Notifier(Registry(config), os.environ)
    stores = [JobStore(tmp_path / "jobs", on_end=notifier.job_ended) for _ in range(2)]
    claim = running(stores[0], kind)
    stores[0].release(claim)
    for store in stores:
        store.settle(claim.job.id)
    end(stores[0], running(stores[0], kind), DONE)
    expected = [("lost", False, "lost")] if kind is not JobKind.CALL else []
    assert [
        (event["event"], event["success"], event["error_type"]) for event in told.events
    ] == expected


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["/no/such/program"], "cannot be run"),
        (["/"], "cannot be run"),
        (["/bin/sh", "-c", "exit 3"], "ended with status 3"),
        (["/bin/sh", "-c", "sleep 100 & wait"], "was killed"),
        (["/bin/sh", "-c", "exec <&-; sleep 0.01"], ""),
    ],
)
def test_what_goes_wrong_with_it_is_logged_and_bounded(
    argv: list[str], says: str, tmp_path: Path
) -> None:
    config = tmp_path / "agents.toml"
    config.write_text(f"[settings]\nnotify = {json.dumps(argv)}\n")
    said: list[str] = []
    began = time.monotonic()
    Notifier(Registry(config), os.environ, report=said.append, timeout_s=1).notify(EVENT)
    assert time.monotonic() - began < 30
    assert says in "".join(said)
    assert bool(said) == bool(says)


def test_a_detached_child_that_keeps_the_pipe_and_reads_nothing_holds_nobody_up(
    tmp_path: Path,
) -> None:
    config = tmp_path / "agents.toml"
    detached = (
        "import os, time; os.fork() or (os.setsid(), time.sleep(40), os._exit(0)); time.sleep(60)"
    )
    argv = [sys.executable, "-I", "-S", "-c", detached]
    config.write_text(f"[settings]\nnotify = {json.dumps(argv)}\n")
    said: list[str] = []
    notifier = Notifier(Registry(config), os.environ, report=said.append, timeout_s=1)
    started = time.monotonic()
    question = Question(id="1", tool="Bash", input="x" * (1 << 20), asked_at=1.0, agent="infra")
    notifier.notify(Event(event="question", job_id="1" * 32, agent="infra", question=question))
    assert time.monotonic() - started < 30
    assert "was killed" in said[0]


@pytest.mark.parametrize("text", ["", "[settings]\nnotify = 3\n", "[broken"])
def test_without_a_command_that_can_be_read_nobody_is_told(text: str, tmp_path: Path) -> None:
    config = tmp_path / "agents.toml"
    config.write_text(text)
    said: list[str] = []
    Notifier(Registry(config), os.environ, report=said.append).notify(EVENT)
    assert said == []
