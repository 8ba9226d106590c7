"""Suggests a known name for a mistyped one."""

from collections.abc import Iterable

MAX_EDITS = 2
_MAX_CHARS = 100
"""Longer texts are not names."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the first known name with the fewest edits from `name`, at most two."""
    if len(name) > _MAX_CHARS:
        return None
    ranked = [(edits(name, other), other) for other in known if other != name]
    fewest, best = min(ranked, default=(MAX_EDITS + 1, ""), key=lambda pair: pair[0])
    return best if fewest <= MAX_EDITS else None


def did_you_mean(name: str, known: Iterable[str], prefix: str = "") -> str:
    """Return ` Did you mean X?`, or nothing if no known name is near."""
    near = nearest(name, known)
    return "" if near is None else f" Did you mean {prefix}{near}?"


def edits(one: str, other: str) -> int:
    """Return how many edits turn one name into the other, up to `MAX_EDITS` + 1.

    An edit adds, removes or replaces a character, or swaps two neighbours.
    """
    if abs(len(one) - len(other)) > MAX_EDITS:
        return MAX_EDITS + 1
    rows = [list(range(len(other) + 1))]
    for i, char in enumerate(one, start=1):
        row = [i]
        for j, wanted in enumerate(other, start=1):
            fewest = min(rows[-1][j - 1] + (char != wanted), rows[-1][j] + 1, row[j - 1] + 1)
            if i > 1 and j > 1 and (one[i - 2], char) == (wanted, other[j - 2]):
                fewest = min(fewest, rows[-2][j - 2] + 1)
            row.append(fewest)
        rows.append(row)
    return rows[-1][-1]
