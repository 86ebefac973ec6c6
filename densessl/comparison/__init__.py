"""Comparisons: train one config from several starts, with several fractions of the labels and several seeds.

:func:`run_grid` runs a :class:`Grid`; :func:`run_cells` runs experiments made of any other commands.
"""

from densessl.comparison.cells import Cell, CompareError, Failure, run_cells
from densessl.comparison.grid import Grid
from densessl.comparison.report import write_results
from densessl.comparison.run import Results, read_results, run_grid
from densessl.comparison.table import report, summary

__all__ = [
    "Cell",
    "CompareError",
    "Failure",
    "Grid",
    "Results",
    "read_results",
    "report",
    "run_cells",
    "run_grid",
    "summary",
    "write_results",
]
