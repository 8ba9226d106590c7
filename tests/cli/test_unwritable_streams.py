"""Standard streams that cannot be written: what is said beside the answer is lost, nothing else."""

import json
import os
import pty
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent_dispatch.jobs import record
from agent_dispatch.jobs.record_files import Claim
from agent_dispatch.jobs.store import JobStore
from agent_dispatch.model.dispatch import DispatchResult, ErrorType
from tests import warm
from tests.cli.support import World
from tests.jobs.support import DONE, end, ended, running
from tests.warm import WarmProgram

HINTED = DispatchResult(agent="infra", success=True, result="Three pods", hint="Look again.")


def _full() -> int:
    return os.open("/dev/full", os.O_WRONLY)


def _hung_up_terminal() -> int:
    ours, theirs = pty.openpty()
    os.close(ours)
    return theirs


def _pipe_without_reader() -> int:
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def _read_only() -> int:
    return os.open(os.devnull, os.O_RDONLY)


UNWRITABLE = [
    pytest.param(
        _full,
        id="full",
        marks=pytest.mark.skipif(
            not Path("/dev/full").exists(), reason="there is no /dev/full here"
        ),
    ),
    pytest.param(_hung_up_terminal, id="terminal"),
    pytest.param(_pipe_without_reader, id="pipe"),
    pytest.param(_read_only, id="read-only"),
]


@contextmanager
def opened(make: Callable[[], int]) -> Iterator[int]:
    fd = make()
    try:
        yield fd
    finally:
        os.close(fd)


def program(world: World, *argv: str, stdout: int, stderr: int) -> WarmProgram:
    return warm.begin("agent_dispatch", *argv, env=world.environ, stdout=stdout, stderr=stderr)


def call(world: World, *argv: str, stderr: int) -> tuple[int, str]:
    """Status and stdout."""
    process = program(world, *argv, stdout=subprocess.PIPE, stderr=stderr)
    out, _ = process.communicate(timeout=60)
    return process.wait(), out


def report(store: JobStore, claim: Claim, *lines: str) -> None:
    store.update(claim, record.with_progress(claim.job, lines, time.time()))


@pytest.fixture
def store(world: World) -> JobStore:
    return JobStore(world.config.parent / "jobs")


@pytest.mark.parametrize("make", UNWRITABLE)
def test_an_answer_is_whole_whatever_stderr_is(
    world: World, store: JobStore, make: Callable[[], int]
) -> None:
    hinted = ended(store, HINTED)
    with opened(make) as stderr:
        assert call(world, "wait", hinted, stderr=stderr) == (0, "Three pods\n")
        status, answer = call(world, "wait", hinted, "--json", stderr=stderr)
        assert (status, json.loads(answer)["status"]) == (0, "done")
        added = call(
            world,
            "add",
            "infra",
            str(world.project("infra")),
            "--allowed-tools=Raed",
            stderr=stderr,
        )
        assert added[0] == 0
        assert call(world, "list", stderr=stderr)[1].startswith("infra  ok")
        assert call(world, "demo", stderr=stderr)[0] == 0


@pytest.mark.parametrize("make", UNWRITABLE)
def test_a_failure_keeps_its_status_whatever_stderr_is(
    world: World, store: JobStore, make: Callable[[], int]
) -> None:
    timeout = DispatchResult(
        agent="infra", success=False, result="", error="Slow.", error_type=ErrorType.TIMEOUT
    )
    late = ended(store, timeout)
    with opened(make) as stderr:
        assert call(world, "wait", late, stderr=stderr)[0] == 124
        assert call(world, "wait", running(store).job.id, "--timeout-seconds=0", stderr=stderr) == (
            3,
            "",
        )
        assert call(world, "describe", "nope", stderr=stderr) == (1, "")
        assert call(world, "init", stderr=stderr)[0] == 1
        assert call(world, "nonsense", stderr=stderr) == (2, "")
        assert call(world, "describe", stderr=stderr) == (2, "")
        assert call(world, "serve", "nonsense", stderr=stderr) == (2, "")


@pytest.mark.parametrize("make", UNWRITABLE)
def test_a_wait_goes_on_when_its_progress_cannot_be_written(
    world: World, store: JobStore, make: Callable[[], int]
) -> None:
    claim = running(store)
    report(store, claim, "Reading")
    with opened(make) as stderr:
        waiting = program(world, "wait", claim.job.id, stdout=subprocess.PIPE, stderr=stderr)
        follower = program(
            world, "tail", claim.job.id, "--follow", stdout=subprocess.PIPE, stderr=stderr
        )
        # It is known to watch once its twin has printed the first line.
        assert follower.stdout is not None
        assert follower.stdout.readline() == b"Reading\n"
        report(store, claim, "Reading", "Writing")
        # What comes while it follows is told with the time of day.
        assert follower.stdout.readline()[8:] == b"  Writing\n"
        end(store, claim, DONE)
        assert (waiting.communicate(timeout=60)[0], waiting.returncode) == ("Three pods\n", 0)
        follower.communicate(timeout=60)
        assert follower.returncode == 0


@pytest.mark.parametrize("make", UNWRITABLE)
def test_a_server_with_no_stderr_ends_as_any_other(world: World, make: Callable[[], int]) -> None:
    with opened(make) as stderr:
        assert call(world, "serve", stderr=stderr) == (0, "")


@pytest.mark.parametrize("make", UNWRITABLE[:3])
@pytest.mark.parametrize(
    "argv",
    [
        ["list"],
        ["describe", "nope", "--json"],
        ["--version"],
        ["--help"],
        ["serve", "--help"],
        ["doctor"],
        ["wait", "JOB"],
        ["wait", "JOB", "--json"],
    ],
)
def test_an_answer_that_cannot_be_written_is_an_error_without_a_traceback(
    world: World, store: JobStore, argv: list[str], make: Callable[[], int]
) -> None:
    job_id = ended(store, HINTED)
    argv = [job_id if word == "JOB" else word for word in argv]
    status = 141 if make is _pipe_without_reader else 1
    with opened(make) as stdout:
        process = program(world, *argv, stdout=stdout, stderr=subprocess.PIPE)
        _, err = process.communicate(timeout=60)
        assert process.returncode == status
        assert "Traceback" not in err
        assert err.count("error: The answer could not be written") == (status == 1)
        # Neither stream: nothing can be told, but by the status.
        mute = program(world, *argv, stdout=stdout, stderr=stdout)
        assert mute.wait(timeout=60) == status


def test_a_reader_of_the_remarks_may_leave_before_the_answer(world: World, store: JobStore) -> None:
    """As in `agent-dispatch wait ID 2> >(head -1)`."""
    claim = running(store)
    reading, writing = os.pipe()
    waiting = program(world, "wait", claim.job.id, stdout=subprocess.PIPE, stderr=writing)
    os.close(writing)
    report(store, claim, "Reading")
    assert b"Reading" in os.read(reading, 1000)
    os.close(reading)
    report(store, claim, "Reading", "Writing")
    end(store, claim, DONE)
    assert (waiting.communicate(timeout=60)[0], waiting.returncode) == ("Three pods\n", 0)
