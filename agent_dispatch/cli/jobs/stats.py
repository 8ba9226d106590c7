"""`stats`: cost and outcome of runs, from the ledger."""

import time
from collections.abc import Iterator, Sequence

from agent_dispatch.cli.jobs.display import age
from agent_dispatch.cli.output import (
    GAP,
    Colour,
    cell_width,
    columns_of,
    counted,
    dollars,
    fit,
    local_time,
    one_line,
    pad,
    paint,
    write_json,
    write_lines,
)
from agent_dispatch.cli.shell import Shell, open_store
from agent_dispatch.cli.validation import check_choice, since_time
from agent_dispatch.core.money.stats import By, Row, rows, total
from agent_dispatch.model.ledger import AccountLimits, LimitWindow

_HEADINGS = ("RUNS", "FAILED", "COST", "P50", "P90", "DENIED")
_TIMEOUT = "TIMEOUT"
_FEWEST_NAME_COLUMNS = 8
_UNNAMED = {By.CALLER: "(no caller)", By.MODEL: "(not known)"}


def stats(*, since: str = "7d", by: str = "agent", json: bool = False, shell: Shell) -> int:
    """Show what runs cost and how they went.

    Args:
        since: A period such as 7d or 24h, or a date such as 2026-11-02.
        by: Group by agent, day, caller or model.
        json: Print an array with an object for each group.
    """
    check_choice("--by", by, By)
    grouping, now = By(by), time.time()
    begin = since_time(since, now)
    ledger = open_store(shell).ledger
    ledger.recover()
    lines = list(ledger.lines(begin))
    found = rows(lines, grouping)
    if json:
        write_json(shell, [row.as_answer(grouping) for row in found])
        return 0
    if found:
        write_lines(shell, _table(found, total(lines), grouping, shell))
    else:
        write_lines(shell, [f"No runs since {local_time(begin)}."])
    if (limits := ledger.limits()) is not None:
        write_lines(shell, [f"Account: {account_use(limits, now)}"])
    return 0


def account_use(limits: AccountLimits, now: float) -> str:
    """Describe how much of the account's limits is used, and how old that figure is."""
    windows = ", ".join(_window(window) for window in limits.windows)
    refused = "the API refused the last run" if limits.status == "rejected" else ""
    what = "; ".join(filter(None, (windows, refused)))
    return f"{one_line(what)} (as of {age(now - limits.at)} ago)"


def _window(window: LimitWindow) -> str:
    resets = "" if window.resets_at is None else f", resets {local_time(window.resets_at)}"
    return f"{window.used:.0%} of the limit {window.name} in use{resets}"


def _table(found: Sequence[Row], everything: Row, by: By, shell: Shell) -> Iterator[str]:
    """The rows, aligned, the names cut to what the terminal has room for."""
    with_timeout = by is By.AGENT
    headings = (*_HEADINGS, *((_TIMEOUT,) if with_timeout else ()))
    total_row = [everything] if len(found) > 1 and by is not By.MODEL else []
    names = [by.upper(), *(one_line(row.name or _UNNAMED.get(by, "")) for row in found)]
    names += ["all" for _ in total_row]
    cells = [headings, *(_cells(row, with_timeout=with_timeout) for row in (*found, *total_row))]
    widths = [max(map(cell_width, column)) for column in zip(*cells, strict=True)]
    taken = sum(widths) + len(GAP) * len(widths)
    room = max(_FEWEST_NAME_COLUMNS, columns_of(shell) - taken)
    name_width = min(room, max(map(cell_width, names)))
    lines = []
    for name, row in zip(names, cells, strict=True):
        numbers = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        lines.append(GAP.join((pad(fit(name, name_width), name_width), *numbers)))
    yield paint(lines[0], Colour.FAINT, shell)
    yield from lines[1:]
    if failures := everything.failures:
        kinds = ", ".join(f"{number} {one_line(kind)}" for kind, number in failures.items())
        yield f"{counted(everything.failed, 'failure')}: {kinds}"
    if with_timeout:
        yield f"{_TIMEOUT}: a suggestion in seconds, twice what nine of ten runs take."


def _cells(row: Row, *, with_timeout: bool) -> tuple[str, ...]:
    cells = (
        str(row.runs),
        str(row.failed),
        "-" if row.cost_usd is None else dollars(row.cost_usd),
        _seconds(row.p50_seconds),
        _seconds(row.p90_seconds),
        str(row.denied),
    )
    timeout_s = row.suggested_timeout_s
    return (*cells, "-" if timeout_s is None else str(timeout_s)) if with_timeout else cells


def _seconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.1f} s"
