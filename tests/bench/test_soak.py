import random

import pytest

from bench.soak import FIGURES, Sample, trends


def samples(*, rss_mib_a_minute: float = 0, jump_at_s: float = 0) -> list[Sample]:
    """Ten minutes, one sample a second, with noise and a warm-up."""
    chance = random.Random(1)
    return [
        Sample(
            at_s=at_s,
            descriptors=14 + chance.randint(0, 2) + (9 if jump_at_s and at_s > jump_at_s else 0),
            threads=6 + chance.randint(0, 3),
            rss_mib=80 - 30 / (1 + at_s) + rss_mib_a_minute * at_s / 60 + chance.uniform(0, 3),
            helper_mib=3.5,
            processes=28,
        )
        for at_s in range(600)
    ]


def growing(found: list[Sample]) -> list[str]:
    return [trend["figure"] for trend in trends(found) if not trend["flat"]]


def test_noise_and_a_warm_up_are_no_growth() -> None:
    assert growing(samples()) == []


def test_a_leak_is_found_however_small_each_step_is() -> None:
    assert growing(samples(rss_mib_a_minute=1.5)) == ["rss_mib"]


def test_a_jump_in_the_middle_is_found() -> None:
    assert growing(samples(jump_at_s=350)) == ["descriptors"]


def test_a_temporary_peak_is_no_growth() -> None:
    found = samples()
    found[300] = Sample(at_s=300, **dict.fromkeys(FIGURES, 1000))
    assert growing(found) == []


def test_a_run_that_is_too_short_is_refused() -> None:
    with pytest.raises(ValueError, match="use more --minutes"):
        trends(samples()[:8])
