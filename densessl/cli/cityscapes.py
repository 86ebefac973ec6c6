"""``densessl cityscapes``: prepare Cityscapes for fine-tuning."""

import argparse
from collections.abc import Sequence

from densessl.cli.guard import EXIT_CODES, add_debug, guarded
from densessl.errors import SettingError
from densessl.finetune.cityscapes import prepare_cityscapes
from densessl.loaders import AUTO, workers
from densessl.wording import count

DESCRIPTION = """Prepare Cityscapes for fine-tuning.

  densessl cityscapes data/cityscapes

The folder must have leftImg8bit/ and gtFine/, as the archives unpack. The command writes
annotations/instancesonly_filtered_gtFine_{train,val}.json for instances, in COCO's format, and
gtFine/*/*/*_gtFine_labelTrainIds.png for semantic segmentation. It does not need cityscapesscripts."""


def parser() -> argparse.ArgumentParser:
    """Build the argument parser."""
    parser = argparse.ArgumentParser(
        prog="densessl cityscapes",
        description=DESCRIPTION,
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("root", help="folder with leftImg8bit/ and gtFine/")
    parser.add_argument(
        "--splits", nargs="+", default=["train", "val"], help="subfolders to prepare (default: train val)"
    )
    parser.add_argument(
        "--workers", default="auto", help="number of processes (default: the number of cores, at most 16)"
    )
    add_debug(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    args = parser().parse_args(argv)
    return guarded(lambda: _prepare(args), args.debug)


def _prepare(args: argparse.Namespace) -> None:
    for file, images, instances, crowds in prepare_cityscapes(args.root, args.splits, _workers(args.workers)):
        print(f"{file}: {count(images, 'image')}, {count(instances, 'instance')}, {count(crowds, 'crowd region')}")


def _workers(text: str) -> int:
    if text != AUTO and not (text.isdecimal() and int(text)):
        raise SettingError(f"--workers: found {text!r}, expected a whole number of at least 1 or 'auto'")
    return workers() if text == AUTO else int(text)
