"""Wherever in the store a process dies, its files are whole, and the next process goes on."""

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tests.jobs.deaths import MOST_CALLS, OPERATIONS


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_process_that_dies_at_any_system_call_leaves_the_old_or_the_new(
    operation: str, quick_directory: Path
) -> None:
    report = subprocess.run(
        [sys.executable, "-m", "tests.jobs.deaths", quick_directory, operation],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        check=False,
    )
    assert report.stderr == b""
    seen = msgspec.json.decode(report.stdout)
    assert seen["violations"] == []
    assert 5 < seen["deaths"] < MOST_CALLS - 1
