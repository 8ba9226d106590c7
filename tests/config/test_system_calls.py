"""Whichever system call of an edit fails, or is the last: the file is the old one or the new."""

import errno
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from agent_dispatch.errors import DispatchError
from tests.config.edits import EDITS, MOST_CALLS, World
from tests.faults.system_calls import Failing

NUMBERS = [errno.EIO, errno.ENOSPC, errno.EACCES, errno.EMFILE]


def error_of(edit: Callable[[World], None], world: World, failing: Failing) -> str | None:
    """What an edit says if one of its system calls fails; it raises nothing else."""
    try:
        with failing:
            edit(world)
    except DispatchError as error:
        return str(error)
    return None


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_that_fails_says_so_and_whether_it_has_changed_the_file(
    edit: str, number: int, quick_directory: Path
) -> None:
    for at in range(1, MOST_CALLS):
        world = World(quick_directory / str(at))
        failing = Failing(at, number)
        error = error_of(EDITS[edit], world, failing)
        if error is None or "was changed, but" in error:
            assert world.says(edit), error
        else:
            assert world.is_as_before(), error
        assert not world.litter()
        if failing.calls < at:
            assert at > 10
            return
    pytest.fail("there is no end of system calls")


@pytest.mark.parametrize("edit", EDITS)
def test_a_process_that_dies_at_any_system_call_leaves_the_old_file_or_the_new(
    edit: str, quick_directory: Path
) -> None:
    report = subprocess.run(
        [sys.executable, "-m", "tests.config.edits", quick_directory, edit],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        check=False,
    )
    assert report.stderr == b""
    seen = msgspec.json.decode(report.stdout)
    assert seen["violations"] == []
    assert 10 < seen["deaths"] < MOST_CALLS - 1
