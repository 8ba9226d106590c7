import math

import pytest

from agent_dispatch.core.request.timeout import call_timeout_s


@pytest.mark.parametrize(
    ("requested", "clamped"),
    [
        (0, None),
        (1, 10),
        (0.5, 10),
        (-5, 10),
        (10, 10),
        (300, 300),
        (7200, 7200),
        (10**400, 7200),
        (math.inf, 7200),
    ],
)
def test_a_timeout_is_clamped_to_its_range(requested: float, clamped: float | None) -> None:
    assert call_timeout_s(requested) == clamped


def test_nan_stays_nan() -> None:
    assert math.isnan(call_timeout_s(math.nan) or 0)
