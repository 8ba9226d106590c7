"""Comparisons for tests: rows as the benchmarks make them, without a measurement."""

from bench.compare.document import Comparison
from bench.compare.verdict import Compared
from bench.report import Row, Target


def figure(
    ours: float,
    predecessor: float | None,
    *targets: Target,
    name: str = "a figure",
    unit: str = "ms",
    floor: float | None = None,
) -> Row:
    """One row of group m1."""
    return Row(
        group="m1",
        name=name,
        unit=unit,
        ours=ours,
        predecessor=predecessor,
        floor=floor,
        floor_is="" if floor is None else "bare child",
        targets=targets,
    )


def compared(row: Row) -> Compared:
    """The row of a run with one repetition."""
    assert row.predecessor is not None
    return Compared(row=row, ours_each=(row.ours,), predecessor_each=(row.predecessor,))


def comparison(*rows: Row) -> Comparison:
    """A run that found these rows."""
    about = {"command": "python -m bench.compare", "predecessor": "0.16.0"}
    return Comparison(about=about, rows=tuple(compared(row) for row in rows))
