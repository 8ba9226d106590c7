"""pytest says how much the tests with the real CLI download, before they do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.claude_cli import VERSION, download_notice

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("chosen", "ignored", "markers", "is_said"),
    [
        ((".",), (), "", True),
        (("tests",), (), "", True),
        (("tests/core", "tests/e2e/test_answers.py::test_x"), (), "", True),
        (("tests/core",), (), "", False),
        (("tests",), ("tests/e2e",), "", False),
        (("tests",), ("tests/core",), "not e2e", False),
    ],
)
def test_a_download_is_announced_where_it_is_about_to_happen(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    chosen: tuple[str, ...],
    ignored: tuple[str, ...],
    markers: str,
    is_said: bool,
) -> None:
    monkeypatch.chdir(ROOT)
    notice = download_notice(tmp_path, chosen, ignored, markers)
    assert (notice is not None) is is_said
    (tmp_path / f"claude-code-{VERSION}").mkdir()
    assert download_notice(tmp_path, chosen, ignored, markers) is None


def test_pytest_announces_it_before_the_first_test(tmp_path: Path) -> None:
    # Only collected, so nothing is downloaded.
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "tests/e2e/test_messages_api.py"],
        cwd=ROOT,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    notice, _, tests = done.stdout.partition("collected ")
    assert "about 180 MB" in notice
    assert "pytest --ignore tests/e2e" in notice
    assert tests
    assert not list(tmp_path.iterdir())
