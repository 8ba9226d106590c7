from pathlib import Path

import pytest

from agent_dispatch.jobs.store import JobStore


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "jobs"


@pytest.fixture
def store(directory: Path) -> JobStore:
    return JobStore(directory)


@pytest.fixture
def other(directory: Path) -> JobStore:
    """Another process's view of the same jobs, which takes its own locks."""
    return JobStore(directory)
