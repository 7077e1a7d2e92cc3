"""How the table of `mtvcraft eval` is laid out in a pipe and in a terminal."""

import sys
from io import StringIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mtvcraft_cli.eval.report import Table


def laid_out(table: "Table") -> str:
    """The table as text, with colours and weights where stdout is a terminal."""
    return _rich(table) if sys.stdout.isatty() else _plain(table)


def _plain(table: "Table") -> str:
    rows = [[row.model, *row.cells] for row in table.rows]
    widths = [max(len(line[place]) for line in (table.columns, *rows)) for place in range(len(table.columns))]
    marks = max((len(row.mark) for row in table.rows), default=0)

    def line(cells: "list[str]", tail: str) -> str:
        first, *others = (
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "  ".join([first, *others, tail]).rstrip()

    lines = [table.title, line(list(table.columns), "")]
    for row, cells in zip(table.rows, rows, strict=True):
        lines.append(line(cells, f"{row.mark.ljust(marks)}  {row.kind}" if marks else row.kind))
    return "\n".join([*lines, *table.notes])


def _rich(table: "Table") -> str:
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    shown = RichTable(title=table.title, title_justify="left", title_style="bold")
    for place, column in enumerate((*table.columns, "", "")):
        shown.add_column(column, justify="right" if 0 < place < len(table.columns) else "left")
    for row in table.rows:
        style = "dim" if row.kind == "published" else ""
        cells = [Text(cell, style="bold" if place in row.best else style) for place, cell in enumerate(row.cells)]
        shown.add_row(Text(row.model, style=style), *cells, Text(row.mark, style=style), Text(row.kind, style=style))
    text = StringIO()
    console = Console(file=text, force_terminal=True, width=Console().width)
    console.print(shown)
    for note in table.notes:
        console.print(Text(note, style="dim"))
    return text.getvalue().rstrip()
