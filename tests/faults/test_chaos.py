"""The witness of `bench.chaos` finds violations; otherwise its silence would mean nothing."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent_dispatch.jobs.store import JobStore
from agent_dispatch.model.job import JOB_VARIABLE, Job
from bench.chaos.agents import read_ledger
from bench.chaos.faults import STRIKES
from bench.chaos.plan import FAULTS, make_plan
from bench.chaos.scene import Scene
from bench.chaos.witness import Witness
from tests.jobs.support import DONE, end, ended, running

HOLD = "import sys; print('up', flush=True); sys.stdin.read()"
GROW = "import sys; print('up', flush=True); sys.stdin.readline(); x = b'x' * (80 << 20);"
TURN = b'{"message": {"content": "answers #0.0"}}\n'


class Sabotage:
    """A scene with one job that is over and one that runs, and ways to spoil it."""

    def __init__(self, directory: Path) -> None:
        self.scene = Scene(directory, limit=1)
        self.over = ended(self.scene.store)
        self.claim = running(self.scene.store)
        self.witness = Witness(self.scene, settles=False)
        self.witness.look()
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def record(self) -> Path:
        return self.scene.jobs / f"{self.over}.json"

    def start(self, script: str, *, job_id: str = "") -> subprocess.Popen[bytes]:
        """A process that belongs to the scene."""
        process = subprocess.Popen(
            [sys.executable, "-IS", "-c", script],
            env={**self.scene.environ, **({JOB_VARIABLE: job_id} if job_id else {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        return process

    def clean_up(self) -> None:
        self.scene.store.release(self.claim)
        for process in self._processes:
            process.kill()
            process.communicate()


@pytest.fixture
def sabotage(tmp_path: Path) -> Iterator[Sabotage]:
    sabotage = Sabotage(tmp_path)
    yield sabotage
    sabotage.clean_up()


def tear(sabotage: Sabotage) -> None:
    sabotage.record.write_bytes(sabotage.record.read_bytes()[:-10])
    sabotage.witness.look()


def lose(sabotage: Sabotage) -> None:
    sabotage.record.unlink()
    sabotage.witness.look()


def forget_what_was_acknowledged(sabotage: Sabotage) -> None:
    sabotage.witness.check_acknowledged(["0" * 32])


def change(sabotage: Sabotage) -> None:
    sabotage.record.write_bytes(sabotage.record.read_bytes().replace(b"Three", b"Seven"))
    sabotage.witness.look()


def abandon(sabotage: Sabotage) -> None:
    class NeverSettling(JobStore):
        def settle(self, job_id: str) -> Job:
            return self.read(job_id)

    sabotage.scene.store = NeverSettling(sabotage.scene.jobs)
    sabotage.scene.store.release(sabotage.claim)
    sabotage.witness.check_owned()


def outlive(sabotage: Sabotage) -> None:
    sabotage.start(HOLD, job_id=sabotage.over)
    sabotage.witness.look_at_processes()
    sabotage.witness.over_at[sabotage.over] = time.monotonic() - 60
    sabotage.witness.look_at_processes()


def crowd(sabotage: Sabotage) -> None:
    command = [str(sabotage.scene.directory / "bin" / "claude"), "-p"]
    environ = {**sabotage.scene.environ, JOB_VARIABLE: "job", "AGENT_DISPATCH_DEPTH": "1"}
    with subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, stdout=-1) as first:
        assert first.stdin is not None
        assert first.stdout is not None
        first.stdin.write(TURN.replace(b"answers", b"plain"))
        first.stdin.flush()
        first.stdout.readline()  # It works: so it has a seat.
        subprocess.run(command, env=environ, input=TURN, capture_output=True, check=True)
        first.kill()
    sabotage.witness.check_crowd()


def succeed_without_an_answer(sabotage: Sabotage) -> None:
    sabotage.witness.check_answers([])


def succeed_before_the_record(sabotage: Sabotage) -> None:
    (sabotage.scene.directory / "ledger").write_text(f"answer {sabotage.claim.job.id} fine\n")
    row = {"success": True, "result": "fine", "job_id": sabotage.claim.job.id}
    sabotage.witness.check_answers([[{"individual_results": [row]}]])


def open_to_all(sabotage: Sabotage) -> None:
    sabotage.record.chmod(0o640)
    sabotage.witness.check_modes()


def grow(sabotage: Sabotage) -> None:
    process = sabotage.start(GROW + HOLD)
    sabotage.witness.look_at_processes()
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"\n")
    process.stdin.flush()
    process.stdout.readline()
    sabotage.witness.look_at_processes()


def sleep_on(sabotage: Sabotage) -> None:
    sabotage.witness.over_at[sabotage.over] = time.monotonic() - 60
    sabotage.witness.check_woken(sabotage.over)


def raise_something(sabotage: Sabotage) -> None:
    os.write(log := sabotage.scene.store.open_log(sabotage.over), b"Traceback (most ...)\n")
    os.close(log)
    sabotage.witness.check_bugs()


@pytest.mark.parametrize(
    ("spoil", "invariant"),
    [
        (tear, "I1"),
        (lose, "I1"),
        (forget_what_was_acknowledged, "I1"),
        (change, "I2"),
        (abandon, "I3"),
        (outlive, "I4"),
        (crowd, "I5"),
        (succeed_without_an_answer, "I6"),
        (succeed_before_the_record, "I1"),
        (open_to_all, "I7"),
        (grow, "I8"),
        (sleep_on, "slept"),
        (raise_something, "bug"),
    ],
)
def test_each_broken_invariant_is_reported(
    sabotage: Sabotage, spoil: Callable[[Sabotage], None], invariant: str
) -> None:
    assert sabotage.witness.violations == []
    spoil(sabotage)
    assert {told.partition(":")[0] for told in sabotage.witness.violations} >= {invariant}


def test_a_sound_scene_has_no_violation(sabotage: Sabotage) -> None:
    ledger = sabotage.scene.directory / "ledger"
    ledger.write_text(f"answer {sabotage.over} Three\n")
    end(sabotage.scene.store, sabotage.claim, DONE)
    with ledger.open("a") as file:
        file.write(f"answer {sabotage.claim.job.id} Three\n")
    witness = sabotage.witness
    witness.look()
    witness.look_at_processes()
    witness.check_owned()
    witness.check_acknowledged([sabotage.over])
    witness.check_crowd()
    witness.check_answers([])
    witness.check_modes()
    witness.check_bugs()
    assert witness.violations == []
    assert len(read_ledger(sabotage.scene.directory).answers) == 2


def test_processes_with_a_cleared_environment_are_found_and_ended(sabotage: Sabotage) -> None:
    claude = str(sabotage.scene.directory / "bin" / "claude")
    command = [sys.executable, "-c", "print('up', flush=True); input()", claude]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env={}, stdin=pipe, stdout=pipe) as hidden:
        # Until it runs, the kernel may not know its arguments yet.
        assert hidden.stdout is not None
        assert hidden.stdout.readline() == b"up\n"
        assert hidden.pid in sabotage.scene.agents()
        sabotage.scene.sweep()
        assert hidden.wait(timeout=10) < 0
    assert sabotage.scene.agents() == []


def test_a_seed_gives_one_plan_and_consecutive_seeds_cover_every_fault() -> None:
    assert make_plan(7) == make_plan(7)
    plans = [make_plan(seed) for seed in range(100, 100 + len(FAULTS))]
    assert {strike.fault for plan in plans for strike in plan.strikes} == set(FAULTS)
    assert len({plan.describe() for plan in plans}) == len(plans)
    assert STRIKES.keys() == FAULTS.keys()


async def test_a_client_may_stop_reading_after_it_has_closed_its_reading_end(
    tmp_path: Path,
) -> None:
    scene = Scene(tmp_path, limit=1)
    async with scene.served(None) as client:
        await client.close_reading_end()
        async with client.not_reading(), client.not_reading():
            assert not client.is_reading
    scene.sweep()
    assert scene.alive() == {}
