import os
import stat
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture
def as_nobody(tmp_path: Path) -> Iterator[Callable[[Callable[[], str]], str]]:
    """Run a function as a user whom file permissions restrict, unlike root."""

    def run(work: Callable[[], str]) -> str:
        reader, writer = os.pipe()
        with warnings.catch_warnings():
            # Python 3.12 warns if idle threads of another test remain; the child takes no lock.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            try:
                if os.geteuid() == 0:
                    os.setgroups([])
                    os.setresgid(65534, 65534, 65534)
                    os.setresuid(65534, 65534, 65534)
                os.write(writer, work().encode())
            finally:
                os._exit(0)
        os.close(writer)
        with open(reader, encoding="utf-8") as answer:
            said = answer.read()
        os.waitpid(child, 0)
        return said

    # Root's test directories are closed to other users. Do not open the directories above them.
    ours = (tmp_path, *tmp_path.parents[:2]) if os.geteuid() == 0 else ()
    modes = {place: stat.S_IMODE(place.stat().st_mode) for place in ours}
    for place, mode in modes.items():
        place.chmod(mode | stat.S_IXOTH)
    if run(lambda: str(os.access(tmp_path, os.X_OK))) != "True":
        pytest.skip("another user cannot reach the test directories")
    yield run
    for place, mode in modes.items():
        place.chmod(mode)
