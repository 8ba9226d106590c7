"""`watch` and `demo --watch` as a person uses them: on a terminal, with keys."""

import signal
import subprocess
import sys
import time

import pytest

from agent_dispatch.jobs.record_files import Claim
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.model.dispatch import DispatchRequest
from agent_dispatch.model.job import JobKind
from tests.cli.support import World
from tests.cli.terminal import PATIENCE_S, REPOSITORY, on_terminal

PROGRAM = [sys.executable, "-P", "-m", "agent_dispatch"]


def environ_of(world: World) -> dict[str, str]:
    return {**world.environ, "TERM": "xterm-256color", "PYTHONPATH": str(REPOSITORY)}


def make_job(world: World, task: str) -> tuple[JobStore, Claim]:
    """A job that this process owns, so that it goes on."""
    store = JobStore(world.config.parent / "jobs")
    return store, store.create(
        store.new_job(DispatchRequest(agent="infra", task=task), kind=JobKind.CALL)
    )


def wait_until_asked(store: JobStore, job_id: str) -> None:
    """Wait until somebody has asked for the job's end."""
    deadline = time.monotonic() + PATIENCE_S
    while store.requests.cancelled_by(job_id) is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_demonstration_shows_several_agents_and_ends_by_itself(world: World) -> None:
    with on_terminal([*PROGRAM, "demo", "--watch"], environ_of(world)) as terminal:
        terminal.wait_for("running", "tides", "I look it up")
        terminal.wait_for("done", "High water on Tuesday is at 05:01")
        assert terminal.wait_exit() == 0


def test_q_ends_the_demonstration(world: World) -> None:
    with on_terminal([*PROGRAM, "demo", "--watch"], environ_of(world)) as terminal:
        terminal.wait_for("running")
        terminal.press("q")
        assert terminal.wait_exit() == 0


def test_a_job_is_opened_filtered_and_cancelled_with_keys(world: World) -> None:
    store, claim = make_job(world, "list the pods")
    with on_terminal([*PROGRAM, "watch"], environ_of(world)) as terminal:
        terminal.wait_for("1 queued", "list the pods", "q quit")
        terminal.press("\r")
        terminal.wait_for("Task", "list the pods", "Esc back")
        terminal.press("\x1b")
        terminal.wait_for("STATUS")
        terminal.press("/nothing\r")
        terminal.wait_for("No jobs match.")
        terminal.press("\x1b")
        terminal.wait_for("1 queued")
        terminal.press("?")
        terminal.wait_for("allow or deny the call")
        terminal.press("x")
        terminal.wait_for("1 queued")
        terminal.resize(60, 10)
        terminal.wait_for("STATUS", without="COST")
        terminal.press("mask the logs too")
        terminal.wait_for("Message: ask the logs too")
        terminal.press("\r")
        terminal.wait_for("as soon as it can")
        terminal.press("c")
        terminal.wait_for("y cancels it")
        terminal.press("n")
        terminal.wait_for("q quit")
        assert store.requests.cancelled_by(claim.job.id) is None
        terminal.press("cy")
        terminal.wait_for("Cancelling")
        wait_until_asked(store, claim.job.id)
        store.release(claim)  # Its owner leaves.
        terminal.wait_for("cancelled")
        terminal.press("q")
        assert terminal.wait_exit() == 0


def test_ctrl_c_ends_it_with_the_status_of_the_signal_and_the_terminal_is_as_before(
    world: World,
) -> None:
    watch = f"{sys.executable} -P -m agent_dispatch watch"
    script = f"trap : INT; {watch}; echo status $?; stty -a | grep -o '.icanon'"
    with on_terminal(["sh", "-c", script], environ_of(world)) as terminal:
        terminal.wait_for("No jobs in the last hour.")
        terminal.press("\x03")
        terminal.wait_for("status 130")
        assert "-icanon" not in terminal.wait_for("icanon")


def run_plain(world: World, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *argv],
        env=environ_of(world),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_without_a_terminal_it_ends_at_once_when_nothing_runs(world: World) -> None:
    ended = run_plain(world, "watch")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_without_a_terminal_each_change_is_a_line(world: World) -> None:
    ended = run_plain(world, "demo", "--watch")
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert sum("tides · running · I look it up" in line for line in lines) >= 3
    assert sum("tides · done · High water" in line for line in lines) == 3
    assert "\x1b" not in ended.stdout


def test_a_job_that_is_not_there_is_an_error(world: World) -> None:
    ended = run_plain(world, "watch", "abcd1234")
    assert ended.returncode == 1
    assert "abcd1234" in ended.stderr


def test_a_reader_that_leaves_ends_it_quietly(world: World) -> None:
    script = f"{sys.executable} -P -m agent_dispatch demo --watch | head -n 1"
    ended = subprocess.run(
        ["sh", "-c", script],
        env=environ_of(world),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.stdout.count("\n") == 1
    assert ended.stderr == ""


@pytest.mark.parametrize("command", [["watch"], ["demo", "--watch"]])
def test_ctrl_c_ends_the_lines_with_the_status_of_the_signal(
    world: World, command: list[str]
) -> None:
    make_job(world, "waits")
    with subprocess.Popen(
        [*PROGRAM, *command],
        env=environ_of(world),
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (130, "")
