"""What is shown: each figure beside the predecessor's, its floor and its target."""

import json
import operator
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median, quantiles

Samples = defaultdict[str, list[float]]
"""What was measured, by the name of the product."""

_COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "=": operator.eq,
}


@dataclass(frozen=True, kw_only=True)
class Target:
    """A bound; `of` says what `factor` multiplies."""

    factor: float
    of: str
    """`predecessor`, `floor`, or `unit` for an absolute bound."""
    sign: str = "<="
    """`<=`, `>=` where more is better, or `=`."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure. The first of its targets that can be computed in this run decides."""

    group: str
    name: str
    unit: str
    ours: float
    predecessor: float | None
    floor: float | None = None
    floor_is: str = ""
    targets: tuple[Target, ...] = ()

    @property
    def target(self) -> Target | None:
        """The target that decides, or the first if none can be computed."""
        computable = (target for target in self.targets if self._base(target) is not None)
        return next(computable, self.targets[0] if self.targets else None)

    @property
    def met(self) -> bool | None:
        """Whether the target holds; None when none can be computed."""
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
        match target.of:
            case "predecessor":
                return f"{bound} x predecessor"
            case "floor":
                return f"{bound} x {self.floor_is}"
            case _:
                return f"{bound} {self.unit}".rstrip()

    def _base(self, target: Target) -> float | None:
        match target.of:
            case "predecessor":
                return self.predecessor
            case "floor":
                return self.floor
            case _:
                return 1.0


def row(
    group: str,
    name: str,
    unit: str,
    figures: Mapping[str, float],
    *targets: Target,
    floor: float | None = None,
    floor_is: str = "",
) -> Row:
    """A row of what was measured by the name of the product."""
    return Row(
        group=group,
        name=name,
        unit=unit,
        ours=figures["agent-dispatch"],
        predecessor=figures.get("predecessor"),
        floor=floor,
        floor_is=floor_is,
        targets=targets,
    )


def of_predecessor(factor: float) -> Target:
    """At most so many times the predecessor's figure."""
    return Target(factor=factor, of="predecessor")


def of_floor(factor: float) -> Target:
    """At most so many times the floor of the row."""
    return Target(factor=factor, of="floor")


def at_most(bound: float) -> Target:
    """At most so much, whoever is beside us."""
    return Target(factor=bound, of="unit")


def at_least(bound: float) -> Target:
    """At least so much, whoever is beside us."""
    return Target(factor=bound, of="unit", sign=">=")


def exactly(bound: float) -> Target:
    """Neither more nor less, whoever is beside us."""
    return Target(factor=bound, of="unit", sign="=")


def medians(samples: Samples, scale: float = 1.0) -> dict[str, float]:
    """The median of each product."""
    return {name: median(values) * scale for name, values in samples.items()}


def percentiles_95(samples: Samples, scale: float = 1.0) -> dict[str, float]:
    """What 95 of 100 samples of each product stay below."""
    return {name: percentile_95(values) * scale for name, values in samples.items()}


def percentile_95(values: Sequence[float]) -> float:
    """What 95 of 100 samples stay below."""
    return quantiles(values, n=20, method="inclusive")[-1] if len(values) > 1 else values[0]


_HEAD = ("row", "figure", "unit", "ours", "predecessor", "ratio", "floor", "target", "verdict")
_VERDICTS = {True: "met", False: "MISSED", None: "-"}


def as_table(rows: Sequence[Row]) -> str:
    """The rows as aligned text."""
    lines = [_HEAD]
    for row in rows:
        ratio = row.ours / row.predecessor if row.predecessor else None
        floor = f"{number(row.floor)} ({row.floor_is})" if row.floor is not None else ""
        lines.append(
            (
                row.group,
                row.name,
                row.unit,
                number(row.ours),
                number(row.predecessor),
                number(ratio),
                floor,
                row.meaning(),
                _VERDICTS[row.met],
            )
        )
    widths = [max(len(line[i]) for line in lines) for i in range(len(_HEAD))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def as_json(rows: Sequence[Row], about: dict[str, object]) -> str:
    """The rows with all that is known of them, and of the run."""
    listed = [asdict(row) | {"target": row.meaning(), "met": row.met} for row in rows]
    return json.dumps({**about, "rows": listed}, indent=2)


def number(value: float | None) -> str:
    """A figure with three digits that say something."""
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
