"""What a row says: whether its target holds, and whether the predecessor is better."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from statistics import median

from bench.report import Row

EVEN = 0.05
"""Two figures that differ by no more than this share are even."""


class Verdict(Enum):
    """What becomes of a row; the text is what is shown."""

    MET = "met"
    MISSED = "missed"
    MET_BUT_WORSE = "met, but worse than the predecessor"
    WORSE = "worse than the predecessor"
    NO_TARGET = "no target"


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A row of several repetitions, and what each of them found."""

    row: Row
    ours_each: tuple[float, ...]
    predecessor_each: tuple[float, ...]

    @property
    def ratio(self) -> float | None:
        """Ours over the predecessor's."""
        return self.row.ours / self.row.predecessor if self.row.predecessor else None

    @property
    def verdict(self) -> Verdict:
        """Whether it is as it should be."""
        worse = is_worse(self.row)
        match self.row.met:
            case True:
                return Verdict.MET_BUT_WORSE if worse else Verdict.MET
            case False:
                return Verdict.WORSE if worse else Verdict.MISSED
            case None:
                return Verdict.WORSE if worse else Verdict.NO_TARGET


def is_worse(row: Row) -> bool:
    """Whether the predecessor's figure is better, and not merely by noise."""
    theirs = row.predecessor
    if theirs is None:
        return False
    match _sign(row):
        case ">=":
            return row.ours < theirs * (1 - EVEN)
        case "=":
            return _away(row, row.ours) > _away(row, theirs)
        case _:
            return row.ours > theirs * (1 + EVEN)


def gain(row: Row) -> float | None:
    """How many times better ours is; None where one of both is nothing."""
    if not row.predecessor or not row.ours or _sign(row) == "=":
        return None
    less = row.predecessor / row.ours
    return 1 / less if _sign(row) == ">=" else less


def merged(repetitions: Iterable[Sequence[Row]]) -> list[Compared]:
    """One row of all that have its name: medians, but of what is counted the worst.

    Rows that have no counterpart with the predecessor, or could not be measured, are left out.
    """
    alike: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for rows in repetitions:
        for row in rows:
            if row.predecessor is not None and not math.isnan(row.ours + row.predecessor):
                alike[row.group, row.name].append(row)
    return [_merged(rows) for rows in alike.values()]


def _merged(rows: Sequence[Row]) -> Compared:
    first = rows[0]
    ours = tuple(row.ours for row in rows)
    theirs = tuple(row.predecessor for row in rows if row.predecessor is not None)
    floors = [row.floor for row in rows if row.floor is not None]
    row = replace(
        first,
        ours=_typical(first, ours),
        predecessor=_typical(first, theirs),
        floor=median(floors) if floors else None,
    )
    return Compared(row=row, ours_each=ours, predecessor_each=theirs)


def _typical(row: Row, values: Sequence[float]) -> float:
    if row.unit:
        return median(values)
    match _sign(row):
        case ">=":
            return min(values)
        case "=":
            return max(values, key=lambda value: _away(row, value))
        case _:
            return max(values)


def _away(row: Row, value: float) -> float:
    return abs(value - row.targets[0].factor)


def _sign(row: Row) -> str:
    # All targets of a row point the same way.
    return row.targets[0].sign if row.targets else "<="
