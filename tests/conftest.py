import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from agent_dispatch.claude.fork_server import ForkServer, start_fork_server
from agent_dispatch.claude.launcher import Launcher
from agent_dispatch.worker import ENTRIES

_MEMORY = Path("/dev/shm")


def pytest_configure() -> None:
    # How long an example takes says more of the machine's load than of the code.
    hypothesis.settings.register_profile("untimed", deadline=None, max_examples=50)
    hypothesis.settings.load_profile("untimed")
    # A shell starts its background jobs with SIGINT ignored, and nohup does so with SIGHUP; tests
    # of signals, and the programs that they start, need what a terminal gives.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for signum in (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def fork_server() -> Iterator[ForkServer]:
    # For all tests, and before the first: it is forked while there is one thread.
    fork_server = start_fork_server(ENTRIES)
    yield fork_server
    fork_server.close()


@pytest.fixture
def launcher(fork_server: ForkServer) -> Launcher:
    return Launcher(fork_server)


@pytest.fixture
def quick_directory(tmp_path: Path) -> Iterator[Path]:
    """A path in memory where that is possible: thousands of fsync(2) take their time."""
    if not _MEMORY.is_dir():
        yield tmp_path / "quick"
        return
    with tempfile.TemporaryDirectory(dir=_MEMORY) as directory:
        yield Path(directory) / "quick"
