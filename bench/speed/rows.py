"""What a measurement returns: rows with a figure of each product, a floor and targets."""

import operator
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles

OURS, PREDECESSOR = "agent-dispatch", "predecessor"
_COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "=": operator.eq,
}


class Samples(defaultdict[str, list[float]]):
    """Samples of one figure, by the name of the product."""

    def __init__(self) -> None:
        super().__init__(list)

    def each(
        self, statistic: Callable[[Sequence[float]], float], scale: float = 1
    ) -> dict[str, float]:
        """One number for each product."""
        return {name: statistic(values) * scale for name, values in self.items()}

    def medians(self, scale: float = 1) -> dict[str, float]:
        """The median of each product."""
        return self.each(median, scale)


def p95(values: Sequence[float]) -> float:
    """The value that 95 of 100 samples stay below."""
    return quantiles(values, n=20, method="inclusive")[-1] if len(values) > 1 else values[0]


@dataclass(frozen=True, kw_only=True)
class Target:
    """A bound: `factor` times what `of` names."""

    factor: float
    of: str
    """`predecessor`, `floor`, or `unit` for an absolute bound."""
    sign: str = "<="
    """`<=`, `>=` where more is better, or `=`."""


def of_predecessor(factor: float, sign: str = "<=") -> Target:
    """A bound relative to the predecessor's figure."""
    return Target(factor=factor, of="predecessor", sign=sign)


def of_floor(factor: float) -> Target:
    """At most `factor` times the floor of the row."""
    return Target(factor=factor, of="floor")


def at_most(bound: float) -> Target:
    """An absolute upper bound."""
    return Target(factor=bound, of="unit")


def at_least(bound: float) -> Target:
    """An absolute lower bound."""
    return Target(factor=bound, of="unit", sign=">=")


def exactly(bound: float) -> Target:
    """An exact figure."""
    return Target(factor=bound, of="unit", sign="=")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure. The first target that can be computed decides."""

    group: str
    name: str
    unit: str
    ours: float
    predecessor: float | None
    floor: float | None = None
    floor_is: str = ""
    targets: tuple[Target, ...] = ()

    @property
    def ratio(self) -> float | None:
        """Our figure divided by the predecessor's."""
        return self.ours / self.predecessor if self.predecessor else None

    @property
    def target(self) -> Target | None:
        """The target that decides, or the first one if none can be computed."""
        computable = (target for target in self.targets if self._base(target) is not None)
        return next(computable, self.targets[0] if self.targets else None)

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None if it cannot be computed."""
        target = self.target
        base = self._base(target) if target is not None else None
        if target is None or base is None:
            return None
        return _COMPARISONS[target.sign](self.ours, target.factor * base)

    def meaning(self) -> str:
        """The target in words."""
        target = self.target
        if target is None:
            return ""
        bound = f"{target.sign} {target.factor:g}"
        of = {"predecessor": "x predecessor", "floor": f"x {self.floor_is}", "unit": self.unit}
        return f"{bound} {of[target.of]}".rstrip()

    def _base(self, target: Target) -> float | None:
        return {"predecessor": self.predecessor, "floor": self.floor, "unit": 1.0}[target.of]


def row(
    group: str,
    name: str,
    unit: str,
    figures: Mapping[str, float],
    *targets: Target,
    floor: tuple[float, str] | None = None,
) -> Row:
    """A row of figures by the name of the product; `floor`: its figure and what it is."""
    return Row(
        group=group,
        name=name,
        unit=unit,
        ours=figures[OURS],
        predecessor=figures.get(PREDECESSOR),
        floor=floor[0] if floor else None,
        floor_is=floor[1] if floor else "",
        targets=targets,
    )


def number(value: float | None) -> str:
    """A figure with three significant digits."""
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def with_unit(value: float | None, row: Row) -> str:
    """A figure with its unit."""
    return f"{number(value)} {row.unit}".rstrip() if value is not None else "-"


def as_table(rows: Iterable[tuple[Row, str]]) -> str:
    """Rows and their verdicts as a table for a terminal."""
    head = ("row", "figure", "ours", "predecessor", "ratio", "floor", "target", "verdict")
    lines = [head]
    for row, verdict in rows:
        floor = f"{number(row.floor)} ({row.floor_is})" if row.floor is not None else ""
        figures = (with_unit(row.ours, row), with_unit(row.predecessor, row), number(row.ratio))
        lines.append((row.group, row.name, *figures, floor, row.meaning(), verdict))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
