import math

import pytest

from bench.compare.verdict import Verdict, gain, is_worse, merged
from bench.report import Row, Target, at_least, at_most, exactly, of_floor, of_predecessor
from tests.bench.compared import compared, figure

MORE_IS_BETTER = Target(factor=10, of="predecessor", sign=">=")


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        (figure(5, 10, of_predecessor(0.6)), Verdict.MET),
        (figure(8, 10, of_predecessor(0.6)), Verdict.MISSED),
        (figure(11, 10, of_predecessor(0.6)), Verdict.WORSE),
        (figure(2, 1, at_most(3)), Verdict.MET_BUT_WORSE),
        (figure(10.4, 10, of_predecessor(0.6)), Verdict.MISSED),
        (figure(3, 10, of_floor(1.25), floor=2), Verdict.MISSED),
        (figure(1000, 100, MORE_IS_BETTER), Verdict.MET),
        (figure(500, 100, MORE_IS_BETTER), Verdict.MISSED),
        (figure(50, 100, MORE_IS_BETTER), Verdict.WORSE),
        (figure(50, 6, exactly(50), unit=""), Verdict.MET),
        (figure(6, 50, exactly(50), unit=""), Verdict.WORSE),
        (figure(51, 6, exactly(50), unit=""), Verdict.MISSED),
        (figure(4, 0, at_least(4), unit=""), Verdict.MET),
        (figure(0, 0, at_most(0), unit=""), Verdict.MET),
        (figure(1, 0, at_most(0), unit=""), Verdict.WORSE),
        (figure(5, 10), Verdict.NO_TARGET),
        (figure(10, 5), Verdict.WORSE),
    ],
)
def test_a_verdict_names_the_target_and_the_predecessor(row: Row, verdict: Verdict) -> None:
    assert compared(row).verdict is verdict


def test_nobody_is_worse_than_nothing() -> None:
    assert not is_worse(figure(10, None, at_most(1)))


@pytest.mark.parametrize(
    ("row", "times"),
    [
        (figure(2, 10, at_most(3)), 5),
        (figure(1000, 100, MORE_IS_BETTER), 10),
        (figure(0, 10, at_most(3)), None),
        (figure(10, 0, at_most(3)), None),
        (figure(50, 6, exactly(50)), None),
    ],
)
def test_a_gain_is_above_one_where_ours_is_better(row: Row, times: float | None) -> None:
    assert gain(row) == times


def test_repetitions_are_merged_to_medians() -> None:
    repetitions = [[figure(ours, 10 * ours, at_most(5), floor=ours)] for ours in (3, 1, 2)]
    [found] = merged(repetitions)
    assert (found.row.ours, found.row.predecessor, found.row.floor) == (2, 20, 2)
    assert found.ours_each == (3, 1, 2)


@pytest.mark.parametrize(
    ("target", "worst"), [(at_most(0), 9), (at_least(4), 1), (exactly(4), 9), (exactly(8), 1)]
)
def test_of_counts_the_worst_repetition_is_shown(target: Target, worst: float) -> None:
    repetitions = [[figure(count, count, target, unit="")] for count in (1, 5, 9)]
    [found] = merged(repetitions)
    assert (found.row.ours, found.row.predecessor) == (worst, worst)


def test_a_row_that_a_repetition_lacks_is_that_of_the_others() -> None:
    [found] = merged([[figure(1, 2)], []])
    assert found.row.ours == 1


def test_a_row_without_a_counterpart_or_a_figure_is_left_out() -> None:
    assert merged([[figure(1, None), figure(math.nan, 1, name="CPU")]]) == []
