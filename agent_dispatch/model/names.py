"""Suggests a known name for a mistyped one.

Arguments and keys of a file that the user wrote are long words, so the most similar one is
suggested. Agents, commands and options may have short names, so only a name within two edits is,
and only if less than half of the word is wrong.
"""

from collections.abc import Iterable

_MAX_EDITS = 2
_MAX_CHARS = 100
"""Longer texts are not names."""


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that `word` resembles most, if any does."""
    # Costs a few milliseconds to import, and most calls and files have no unknown word.
    import difflib

    folded = {candidate.casefold(): candidate for candidate in known}
    found = difflib.get_close_matches(word.casefold().replace("-", "_")[:_MAX_CHARS], folded, n=1)
    return folded[found[0]] if found else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ` Did you mean X?`, or nothing if no known name is near.

    X is the first known name with the fewest edits.
    """
    if len(name) > _MAX_CHARS:
        return ""
    ranked = [(edits(name, other), other) for other in known if other != name]
    fewest, best = min(ranked, default=(_MAX_EDITS + 1, ""), key=lambda pair: pair[0])
    return f" Did you mean {best}?" if fewest <= _MAX_EDITS and 2 * fewest < len(name) else ""


def edits(one: str, other: str) -> int:
    """Return how many edits turn one name into the other; above two, any larger number.

    An edit adds, removes or replaces a character, or swaps two neighbours.
    """
    if abs(len(one) - len(other)) > _MAX_EDITS:
        return _MAX_EDITS + 1
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
