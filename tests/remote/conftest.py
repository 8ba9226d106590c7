from pathlib import Path

import pytest

from tests.remote.machine import Machine


@pytest.fixture
def gpu(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path / "gpu")
    machine.project("train")
    return machine


@pytest.fixture
def laptop(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "laptop")
