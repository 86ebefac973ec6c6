"""One config trained from several starts, with few labels and many, over seeds: what pretraining is worth, measured.

:func:`run_grid` runs a :class:`Grid`; :func:`run_cells` whatever else an experiment is made of.
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
