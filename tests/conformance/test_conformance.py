"""The official conformance suite of MCP against our HTTP app.

It needs Node 22; both come from npm, into the cache of the tests. Without npm the tests are
skipped, or fail where `AGENT_DISPATCH_E2E=require` is set.
"""

import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.npm import CannotInstallError, cache_folder, installed

NODE = "22.23.3"
STABLE, NEXT = "0.1.16", "0.2.0-alpha.12"
REPOSITORY = Path(__file__).parents[2]
_RUN_S = 240

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="session")
def node() -> Path:
    machine = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    package = f"node-{sys.platform}-{machine}"
    return _installed(package, NODE) / package / "bin" / "node"


def suite(version: str) -> Path:
    package = "@modelcontextprotocol/conformance"
    return _installed(package, version) / package / "dist" / "index.js"


def _installed(package: str, version: str) -> Path:
    name = f"{package.rpartition('/')[2]}-{version}"
    try:
        home = installed(cache_folder(os.environ) / name, [f"{package}@{version}"])
    except CannotInstallError as error:
        if os.environ.get("AGENT_DISPATCH_E2E") == "require":
            pytest.fail(f"the conformance suite is required here: {error}", pytrace=False)
        pytest.skip(f"no conformance suite: {error}")
    return home / "node_modules"


@pytest.fixture
def url() -> Iterator[str]:
    command = [sys.executable, "-m", "tests.conformance.fixture"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=REPOSITORY, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.kill()


@pytest.mark.parametrize(
    ("version", "options", "fewest"),
    [
        (STABLE, [], 40),
        (NEXT, ["--suite", "all", "--spec-version", "2025-11-25"], 81),
        (NEXT, ["--suite", "all", "--spec-version", "2026-07-28"], 147),
    ],
    ids=["stable", "2025-11-25", "2026-07-28"],
)
def test_every_check_of_the_suite_passes(
    node: Path, url: str, tmp_path: Path, version: str, options: list[str], fewest: int
) -> None:
    ended = subprocess.run(
        [node, suite(version), "server", "--url", url, *options],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=_RUN_S,
        check=False,
    )
    total = re.search(r"Total: (\d+) passed, (\d+) failed", ended.stdout)
    assert total is not None, ended.stdout + ended.stderr
    failed = [line for line in ended.stdout.splitlines() if line.startswith("✗")]
    assert (failed, ended.returncode) == ([], 0), ended.stdout
    # So that a suite that ran nothing is no success.
    assert int(total[1]) >= fewest
