from pathlib import Path

import pytest

from tests.remote.machine import Machine, WarmMachine


@pytest.fixture
def gpu(tmp_path: Path) -> Machine:
    machine = WarmMachine(tmp_path / "gpu")
    machine.project("train")
    return machine


@pytest.fixture
def laptop(tmp_path: Path) -> Machine:
    return WarmMachine(tmp_path / "laptop")
