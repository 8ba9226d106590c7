"""A full disk, a read-only disk, and reused pids, each in its own namespaces."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_INTO = ("unshare", "--map-root-user", "--mount", "--pid", "--fork", "--mount-proc")
_ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def namespaces() -> None:
    if shutil.which("unshare") is None:
        pytest.skip("no unshare(1) here")
    probe = subprocess.run([*_INTO, "true"], capture_output=True, text=True, check=False)
    if probe.returncode != 0:
        pytest.skip(f"no namespaces here: {probe.stderr.strip()}")


def play(scenario: str, directory: Path) -> None:
    command = [*_INTO, sys.executable, "-m", "tests.faults.own_machine", scenario, str(directory)]
    done = subprocess.run(command, cwd=_ROOT, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_full_disk_loses_no_answer_and_starts_nothing(tmp_path: Path) -> None:
    play("full", tmp_path)


def test_on_a_read_only_disk_nothing_starts_and_all_is_readable(tmp_path: Path) -> None:
    play("read-only", tmp_path)


def test_a_reused_pid_is_not_taken_for_the_owner(tmp_path: Path) -> None:
    play("reused", tmp_path)
