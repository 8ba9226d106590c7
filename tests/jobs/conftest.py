import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_dispatch.jobs.file_store import FileJobStore

_MEMORY = Path("/dev/shm")


@pytest.fixture
def quick_directory(tmp_path: Path) -> Iterator[Path]:
    """In memory where that is possible: thousands of fsync(2) take their time."""
    if not _MEMORY.is_dir():
        yield tmp_path / "jobs"
        return
    with tempfile.TemporaryDirectory(dir=_MEMORY) as directory:
        yield Path(directory) / "jobs"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "jobs"


@pytest.fixture
def store(directory: Path) -> FileJobStore:
    return FileJobStore(directory)


@pytest.fixture
def other(directory: Path) -> FileJobStore:
    """Another process's view of the same jobs: the locks it takes are its own."""
    return FileJobStore(directory)
