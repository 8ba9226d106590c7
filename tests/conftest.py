import os
import signal
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import hypothesis
import pytest
from trio.testing import MockClock

from agent_dispatch.claude.fork_server import ForkServer, start_fork_server
from agent_dispatch.claude.launcher import Launcher
from agent_dispatch.core.text import scrubbed
from agent_dispatch.worker import ENTRIES
from tests.clocks import clock_beside_threads
from tests.e2e.claude_cli import download_notice
from tests.npm import cache_folder

_MEMORY = Path("/dev/shm")


def pytest_configure() -> None:
    # The time of an example depends more on the machine's load than on the code.
    hypothesis.settings.register_profile("untimed", deadline=None, max_examples=50)
    hypothesis.settings.load_profile("untimed")
    # A shell starts its background jobs with SIGINT ignored, and nohup ignores SIGHUP. Tests of
    # signals, and the programs that they start, need the defaults of a terminal.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for signum in (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_DFL)


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Say what is about to be downloaded, before it is."""
    ignored = config.getoption("ignore") or ()
    markers = config.getoption("markexpr")
    notice = download_notice(cache_folder(os.environ), config.args, ignored, markers)
    return [] if notice is None else [notice]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    # pytest-xdist sends reports as UTF-8, and some tests log text that is not.
    report = yield
    report.sections = scrubbed(report.sections)
    return report


@pytest.fixture(scope="session", autouse=True)
def fork_server() -> Iterator[ForkServer]:
    # Started before the first test, while there is one thread; all tests share it.
    fork_server = start_fork_server(ENTRIES)
    yield fork_server
    fork_server.close()


@pytest.fixture
def launcher(fork_server: ForkServer) -> Launcher:
    return Launcher(fork_server)


@pytest.fixture
def quick_directory(tmp_path: Path) -> Iterator[Path]:
    """A path in memory if possible, because thousands of fsync(2) are slow on a disk."""
    if not _MEMORY.is_dir():
        yield tmp_path / "quick"
        return
    with tempfile.TemporaryDirectory(dir=_MEMORY) as directory:
        yield Path(directory) / "quick"


@pytest.fixture
def autojump_clock(monkeypatch: pytest.MonkeyPatch) -> MockClock:
    """A virtual clock that waits a moment before it jumps, and for threads that work."""
    # Else it would jump from poll to poll of those that wait in line.
    monkeypatch.setattr("agent_dispatch.run.slots._POLL_S", (1.0, 1.5))
    return clock_beside_threads(0.05)
