"""Format rows of cells as aligned columns that fit the terminal."""

from collections.abc import Mapping, Sequence

from agent_dispatch.cli.output import Colour, cell_width, columns_of, fit, pad, paint
from agent_dispatch.cli.shell import Shell

GAP = "  "
_FEWEST_COLUMNS = 20
"""Of the last cell, however narrow the terminal is."""


def table(
    rows: Sequence[Sequence[str]],
    shell: Shell,
    *,
    headings: Sequence[str] = (),
    colours: Sequence[Mapping[int, Colour]] = (),
) -> list[str]:
    """Return one line for each row; the last cell is cut at the edge of the terminal.

    Args:
        rows: Printable cells, all rows of one length.
        headings: The first line.
        colours: For each row, the colours of cells by their place; the last cell has none.
    """
    if not rows:
        return []
    every = [headings, *rows] if headings else rows
    widths = [max(map(cell_width, column)) for column in zip(*every, strict=True)][:-1]
    room = columns_of(shell) - sum(widths) - len(GAP) * len(widths)

    def line(row: Sequence[str], colours: Mapping[int, Colour]) -> str:
        cells = [pad(cell, width) for cell, width in zip(row, widths, strict=False)]
        for place, colour in colours.items():
            cells[place] = paint(cells[place], colour, shell)
        return GAP.join([*cells, fit(row[-1], max(room, _FEWEST_COLUMNS))]).rstrip()

    lines = [paint(line(headings, {}), Colour.FAINT, shell)] if headings else []
    for place, row in enumerate(rows):
        lines.append(line(row, colours[place] if colours else {}))
    return lines
