import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_dispatch.core.text import clip, cut_middle, fair_shares


@pytest.mark.parametrize(("text", "shown"), [("", ""), ("abc", "abc"), ("abcd", "ab…")])
def test_a_long_text_is_cut_to_the_limit_with_an_ellipsis(text: str, shown: str) -> None:
    assert clip(text, 3) == shown


def test_a_text_that_is_too_long_loses_its_middle_and_says_how_much() -> None:
    assert cut_middle("x" * 90, 90) == "x" * 90
    cut = cut_middle("a" * 60 + "b" * 100 + "c" * 30, 90, "all of it is in job 1")
    assert cut == (
        f"{'a' * 60}\n[... 100 characters left out here; all of it is in job 1 ...]\n{'c' * 30}"
    )
    assert "100 characters left out here ...]" in cut_middle("x" * 190, 90)


@pytest.mark.parametrize(
    ("sizes", "total", "shares"),
    [
        ([], 1000, []),
        ([5], 1000, [5]),
        ([5000], 1000, [1000]),
        ([100, 5000, 5000], 1000, [100, 450, 450]),
        ([300, 300, 400], 1000, [300, 300, 400]),
        ([0, 0, 2000], 1000, [0, 0, 1000]),
        ([9000] * 10, 1000, [200] * 10),
    ],
)
def test_small_texts_get_all_and_the_others_equal_shares(
    sizes: list[int], total: int, shares: list[int]
) -> None:
    assert fair_shares(sizes, total) == shares


@given(st.lists(st.integers(0, 10_000), max_size=20), st.integers(10_000, 50_000))
def test_shares_fit_and_use_the_whole_total(sizes: list[int], total: int) -> None:
    shares = fair_shares(sizes, total)
    assert sum(shares) <= total
    assert all(share <= size for share, size in zip(shares, sizes, strict=True))
    if sum(sizes) <= total:
        assert shares == sizes
    else:
        assert sum(shares) > total - len(sizes)
