"""``densessl compare``: train one config from several starts and compare the results."""

import argparse
import os
import signal
from collections.abc import Sequence
from pathlib import Path

from densessl.cli.guard import EXIT_CODES, add_debug, guarded
from densessl.cli.options import add_own_data
from densessl.comparison.cells import CompareError
from densessl.comparison.grid import ALL, Grid
from densessl.comparison.report import write_results
from densessl.comparison.run import read_results, run_grid
from densessl.run_settings import OWN_DATA
from densessl.weights.read import NONE

EVALUATIONS = 5
CHOICES = ("classes", "boxes_as_masks")  # how own data are used


def parser() -> argparse.ArgumentParser:
    """Build the argument parser."""
    parser = argparse.ArgumentParser(
        prog="densessl compare",
        description="Train one config from several starts, with several fractions of the labels and several seeds,\n"
        "and compare the starts. You can stop it at any time: the same command continues, and repeats no finished run.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", help="config of the detector or segmentor: a file or mmdet::NAME")
    parser.add_argument(
        "--init",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="a start; repeat the option for each. FILE is any file that densessl train --init takes, or "
        f"{NONE} for random weights. The others are compared with the first",
    )
    parser.add_argument(
        "--seeds", type=int, default=3, metavar="S", help="run each start with seeds 0 to S-1 (default: 3)"
    )
    parser.add_argument(
        "--labels",
        action="append",
        default=[],
        metavar="FRACTION",
        help="part of the labels, as for densessl train --labels; may be repeated (default: all)",
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--steps", type=int, metavar="N", help="optimiser steps of every run (default: the config's schedule)"
    )
    length.add_argument("--minutes", type=float, metavar="M", help="as many steps as fit in M minutes, timed once")
    parser.add_argument(
        "--evaluations",
        type=int,
        metavar="K",
        help=f"evaluations of every run, with --steps or --minutes (default: {EVALUATIONS})",
    )
    parser.add_argument("--data-root", metavar="DIR", help="folder of the data (default: the config's)")
    add_own_data(parser)
    parser.add_argument(
        "--set",
        "--cfg-options",
        dest="cfg_options",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="change config entries of every run",
    )
    parser.add_argument(
        "--metric",
        action="append",
        default=[],
        metavar="M",
        help="metric to show: its name in tables or its key in logs; may be repeated",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for all results")
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="J", help="number of simultaneous runs (default: 1; use 1 on one GPU)"
    )
    parser.add_argument(
        "--threads",
        type=int,
        metavar="T",
        help="threads of each run (default if J > 1: the number of cores divided by J)",
    )
    parser.add_argument("--keep", action="store_true", help="keep the checkpoints of finished runs")
    parser.add_argument(
        "--redo", action="store_true", help="repeat runs that were made with other settings, instead of refusing"
    )
    parser.add_argument("--show", action="store_true", help="print the results in --out, and run nothing")
    add_debug(parser)
    return parser


def grid_of(args: argparse.Namespace) -> Grid:
    """Return the grid that a command line describes.

    Raises:
        CompareError: the options describe no grid.
    """
    inits = {}
    for text in args.init:
        name, equals, file = text.partition("=")
        if not (name and equals and file):
            raise CompareError(f"--init {text}: expected NAME=FILE, or NAME={NONE}")
        if name in inits:
            raise CompareError(f"--init {text}: {name} was given before, as {inits[name] or NONE}")
        inits[name] = None if file == NONE else file
    if not args.config:
        raise CompareError("--config: expected a file or mmdet::NAME, found none")
    if args.jobs < 1:
        raise CompareError(f"--jobs: expected 1 or more, found {args.jobs}")
    if args.threads is not None and args.threads < 1:
        raise CompareError(f"--threads: expected 1 or more, found {args.threads}")
    sized = args.steps is not None or args.minutes is not None
    if args.evaluations is not None and not sized:
        raise CompareError("--evaluations: the config says when to evaluate; expected --steps or --minutes with it")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Grid(
        config=args.config,
        inits=inits,
        out=args.out,
        seeds=tuple(range(args.seeds)),
        labels=tuple(args.labels) or (ALL,),
        steps=args.steps,
        minutes=args.minutes,
        evaluations=(args.evaluations or EVALUATIONS) if sized else None,
        data_root=args.data_root,
        own_data={name: value for name in (*OWN_DATA, *CHOICES) if (value := getattr(args, name))},
        cfg_options=tuple(args.cfg_options),
        threads=args.threads or (max(1, cores // args.jobs) if args.jobs > 1 else None),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code, 1 if some run failed."""
    args = parser().parse_args(argv)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # SIGTERM ends the runs too, as Ctrl-C does
    try:
        return guarded(lambda: _compare(args), args.debug, "; the same command continues from here")
    finally:
        signal.signal(signal.SIGTERM, before)


def _compare(args: argparse.Namespace) -> int:
    results = read_results(args.out) if args.show else run_grid(grid_of(args), args.jobs, args.keep, args.redo)
    print(f"\n{write_results(results, args.out, args.metric)}")
    return 1 if results.failures else 0
