"""``densessl cityscapes``: make Cityscapes ready to fine-tune on."""

import argparse
from collections.abc import Sequence

from densessl.cli.guard import EXIT_CODES, add_debug, guarded
from densessl.errors import SettingError
from densessl.finetune.cityscapes import prepare_cityscapes
from densessl.loaders import AUTO, workers

DESCRIPTION = """Make Cityscapes ready to fine-tune on.

  densessl cityscapes data/cityscapes

The folder has leftImg8bit/ and gtFine/, as their archives unpack. Written are, in COCO's format,
annotations/instancesonly_filtered_gtFine_{train,val}.json for instances, and
gtFine/*/*/*_gtFine_labelTrainIds.png for semantic segmentation. cityscapesscripts is not needed."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
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
    parser.add_argument("--workers", default="auto", help="processes (default: the cores there are, at most 16)")
    add_debug(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run. Returns the exit code."""
    args = parser().parse_args(argv)
    return guarded(lambda: _prepare(args), args.debug)


def _prepare(args: argparse.Namespace) -> None:
    for file, images, instances, crowds in prepare_cityscapes(args.root, args.splits, _workers(args.workers)):
        print(f"{file}: {images} images, {instances} instances, {crowds} crowd regions")


def _workers(text: str) -> int:
    if text != AUTO and not (text.isdecimal() and int(text)):
        raise SettingError(f"--workers: found {text!r}, expected a whole number of at least 1 or 'auto'")
    return workers() if text == AUTO else int(text)
