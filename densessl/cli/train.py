"""``densessl train``: run what a config and a few options describe."""

import argparse
from collections.abc import Sequence
from dataclasses import fields

from densessl.cli.guard import EXIT_CODES, add_debug, guarded
from densessl.cli.options import Options, add_own_data
from densessl.errors import SettingError
from densessl.run_settings import RunSettings
from densessl.runs import build_run, explain_run


def parser() -> argparse.ArgumentParser:
    """Build the argument parser."""
    parser = argparse.ArgumentParser(
        prog="densessl train",
        description="Pretrain a backbone or detector on unlabelled images, or train a detector or "
        "segmentor, as a config "
        "describes.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "config",
        nargs="?",  # --data-root may have taken it, see _settings
        help="a config file, or the name of a shipped config (pixpro_r18) or a stock one (mmdet::retinanet/…)",
    )
    parser.add_argument(
        "--data-root",
        nargs="+",
        metavar="PLACE",
        help="folder of images (searched recursively), .zip or .tar, list file or COCO json, or several of these; "
        "for a detector's config, its data_root",
    )
    parser.add_argument(
        "--demo",
        action="store_true",
        help="a short run on built-in pictures: same model and objectives, less data, smaller batch, shorter schedule",
    )
    parser.add_argument("--work-dir", help="folder for logs and checkpoints (default: work_dirs/<config name>)")
    parser.add_argument(
        "--resume",
        nargs="?",
        const=True,
        default=False,
        metavar="FILE",
        help="continue from the last checkpoint of the work folder, or from FILE",
    )
    parser.add_argument(
        "--init",
        metavar="FILE",
        help="start from the weights in this file, whichever code wrote it; 'none' starts from random weights",
    )
    parser.add_argument("--seed", type=int, help="seed of all random numbers of the run")
    parser.add_argument(
        "--batch-size",
        type=_number_or_auto,
        metavar="N",
        help="images per process and iteration; 'auto': the config's, or fewer if there are too few images",
    )
    parser.add_argument(
        "--epochs",
        type=_number_or_auto,
        metavar="N",
        help="epochs of a pretraining; 'auto' derives them from the number of images",
    )
    parser.add_argument("--regions", metavar="STORE", help="for pretraining: region store made by densessl regions")
    parser.add_argument(
        "--bad-images",
        metavar="N",
        help="images that may be missing or damaged before the run stops: a share (default: 0.1%%, at least one), a "
        "number, or 'none'",
    )
    add_own_data(parser)
    detector = parser.add_argument_group("detectors and segmentors")
    detector.add_argument("--labels", help="part of the train set: 10%%, 30-shot (boxes per class), 100-images")
    detector.add_argument("--labels-seed", type=int, metavar="SEED", help="which part of that size (default: 0)")
    detector.add_argument("--steps", type=int, metavar="N", help="scale the config's schedule to N optimiser steps")
    detector.add_argument(
        "--evaluations", type=int, metavar="K", help="evaluate K times during --steps, evenly spread (default: 1)"
    )
    parser.add_argument(
        "--launcher",
        choices=("none", "pytorch", "slurm"),
        default="none",
        help="what started the processes (default: %(default)s)",
    )
    parser.add_argument(
        "--set",
        "--cfg-options",
        dest="options",
        nargs="+",
        action=Options,
        default={},
        metavar="KEY=VALUE",
        help="change entries of the config: train_dataloader.num_workers=8 'views.*.size=160'",
    )
    parser.add_argument(
        "--explain",
        action="store_true",
        help="print every setting of the run, its value, where it comes from and what it means; train nothing",
    )
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)
    add_debug(parser)
    return parser


def _number_or_auto(text: str) -> int | str:
    try:
        return text if text == "auto" else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a whole number or 'auto'") from None


def settings_of(argv: Sequence[str] | None = None) -> RunSettings:
    """Return the settings of a command line.

    Raises:
        SettingError: a number is out of range.
    """
    return _settings(parser().parse_args(argv))


def _settings(args: argparse.Namespace) -> RunSettings:
    if args.config is None and len(args.data_root or ()) > 1:  # densessl train --data-root photos/ pixpro_r18
        args.config = args.data_root.pop()
    if args.config is None:
        raise SettingError("the following arguments are required: config; densessl train --help has the options")
    return RunSettings(**{each.name: getattr(args, each.name) for each in fields(RunSettings)})


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    args = parser().parse_args(argv)
    return guarded(lambda: _train(args), args.debug)


def _train(args: argparse.Namespace) -> None:
    settings = _settings(args)
    if args.explain:
        print(explain_run(settings))
    else:
        build_run(settings).train()
