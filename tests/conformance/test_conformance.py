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


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    yield from _address_of("tests.conformance.fixture")


@pytest.fixture(scope="module")
def tasks_url() -> Iterator[str]:
    yield from _address_of("tests.conformance.tasks_fixture")


def _address_of(module: str) -> Iterator[str]:
    command = [sys.executable, "-m", module]
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


# Our jobs never end like this, by the contract of the product.
_TASKS: dict[str, frozenset[str]] = {
    "tasks-lifecycle": frozenset(
        {
            # A run that failed is a result that says so, and no error of the tool.
            "sep-2663-tool-error-uses-completed-status",
            # A wrong call is answered before there is a task, so no task ends in such an error.
            "sep-2663-tasks-get-status-failed",
        }
    ),
    "tasks-capability-negotiation": frozenset(),
    "tasks-wire-fields": frozenset(),
    "tasks-request-state-removal": frozenset(),
    "tasks-mrtr-input": frozenset(),
    "tasks-request-headers": frozenset(),
    "tasks-dispatch-and-envelope": frozenset(),
    "tasks-status-notifications": frozenset(),
    "tasks-required-task-error": frozenset(),
    "tasks-mrtr-composition": frozenset(),
}


@pytest.mark.parametrize("scenario", _TASKS)
def test_every_check_of_tasks_passes_except_for_ends_that_no_job_has(
    node: Path, tasks_url: str, tmp_path: Path, scenario: str
) -> None:
    ended = subprocess.run(
        [node, suite(NEXT), "server", "--url", tasks_url, "--scenario", scenario],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=_RUN_S,
        check=False,
    )
    said = re.sub(r"\x1b\[\d*m", "", ended.stdout)
    failed = set(re.findall(r"\[(\S+?)\s*\] FAILURE", said))
    assert failed == _TASKS[scenario], said + ended.stderr
    if scenario != "tasks-status-notifications":  # The suite checks nothing there yet.
        assert "] SUCCESS" in said, said + ended.stderr
