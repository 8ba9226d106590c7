from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.house import House

MakeHouse = Callable[..., House]


@pytest.fixture
def make_house(tmp_path: Path) -> Iterator[MakeHouse]:
    houses: list[House] = []

    def make(script: str, *, settings: str = "") -> House:
        houses.append(House(tmp_path, script, settings=settings))
        return houses[-1]

    yield make
    for house in houses:
        house.sweep()
