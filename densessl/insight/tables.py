"""Print figures as a table on the terminal."""

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table


def print_table(title: str, columns: Mapping[str, Mapping[str, float]]) -> None:
    """Print a table with one column per entry of ``columns``, which maps the names of figures to values."""
    table = Table(title=title, title_justify="left")
    table.add_column()
    for name in columns:
        table.add_column(name, justify="right")
    for figure in next(iter(columns.values())):
        table.add_row(figure, *(f"{figures[figure]:.3f}" for figures in columns.values()))
    Console().print(table)
