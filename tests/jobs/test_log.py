import os
from pathlib import Path

import pytest

from agent_dispatch.jobs.errors import JobStoreError
from agent_dispatch.jobs.log import JobLog


def test_a_log_is_made_with_the_first_write_and_is_not_buffered(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with JobLog(lambda: os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)) as log:
        assert not path.exists()
        print("half a pair: \ud800", file=log)
        assert path.read_text() == "half a pair: \\ud800\n"


@pytest.mark.parametrize("error", [JobStoreError("full"), OSError("full")])
def test_a_log_that_cannot_be_written_raises_nothing(error: Exception) -> None:
    def refuse() -> int:
        raise error

    with JobLog(refuse) as log:
        print("lost", file=log)
