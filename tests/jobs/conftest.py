from pathlib import Path

import pytest

from agent_dispatch.jobs.file_store import FileJobStore


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
