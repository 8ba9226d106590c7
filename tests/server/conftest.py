import pytest
from trio.testing import MockClock


@pytest.fixture
def autojump_clock() -> MockClock:
    """A virtual clock that jumps at once: the service is a fake one here, without threads."""
    return MockClock(autojump_threshold=0)
