"""What a comparison says of its rows."""

import math

import pytest

from bench.compare.comparison import Compared, Verdict, gain, is_worse, merged
from bench.speed.rows import Row, Target, at_least, at_most, exactly, of_floor, of_predecessor, row

MORE_IS_BETTER = of_predecessor(10, ">=")


def figure(
    ours: float,
    theirs: float,
    *targets: Target,
    unit: str = "ms",
    name: str = "a figure",
    floor: float | None = None,
) -> Row:
    figures = {"agent-dispatch": ours, "predecessor": theirs}
    beside = None if floor is None else (floor, "bare child")
    return row("m1", name, unit, figures, *targets, floor=beside)


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
        (figure(1, 0, at_most(0), unit=""), Verdict.WORSE),
        (figure(5, 10), Verdict.NO_TARGET),
        (figure(10, 5), Verdict.WORSE),
    ],
)
def test_a_verdict_considers_the_target_and_the_predecessor(row: Row, verdict: Verdict) -> None:
    compared = Compared(row=row, ours_each=(row.ours,), predecessor_each=(row.predecessor or 0,))
    assert compared.verdict is verdict


def test_without_a_predecessor_nothing_is_worse_and_the_next_target_decides() -> None:
    alone = row("m1", "alone", "ms", {"agent-dispatch": 10}, of_predecessor(1), at_most(9))
    assert not is_worse(alone)
    assert alone.met is False


@pytest.mark.parametrize(
    ("row", "times"),
    [
        (figure(2, 10, at_most(3)), 5),
        (figure(1000, 100, MORE_IS_BETTER), 10),
        (figure(0, 10, at_most(3)), None),
        (figure(50, 6, exactly(50)), None),
    ],
)
def test_a_gain_is_above_one_where_ours_is_better(row: Row, times: float | None) -> None:
    assert gain(row) == times


def test_repetitions_are_merged_to_medians() -> None:
    repetitions = [[figure(ours, 10 * ours, at_most(5), floor=ours)] for ours in (3, 1, 2)]
    [found] = merged([*repetitions, []])
    assert (found.row.ours, found.row.predecessor, found.row.floor) == (2, 20, 2)
    assert found.ours_each == (3, 1, 2)


@pytest.mark.parametrize(
    ("target", "worst"), [(at_most(0), 9), (at_least(4), 1), (exactly(4), 9), (exactly(8), 1)]
)
def test_the_worst_repetition_of_a_count_is_shown(target: Target, worst: float) -> None:
    [found] = merged([[figure(count, count, target, unit="")] for count in (1, 5, 9)])
    assert (found.row.ours, found.row.predecessor) == (worst, worst)


def test_a_row_without_a_figure_of_each_product_is_left_out() -> None:
    alone = row("m1", "alone", "ms", {"agent-dispatch": 1})
    assert merged([[alone, figure(math.nan, 1, name="CPU")]]) == []
