"""``densessl regions``: build, check and import region stores."""

import argparse
import inspect
import os
from collections.abc import Sequence

from densessl.cli.guard import EXIT_CODES, add_debug, guarded
from densessl.cli.options import Options, tell_errors_in_a_line
from densessl.data.sources import remedies
from densessl.errors import SettingError
from densessl.regions.build import build
from densessl.regions.check import check
from densessl.regions.importing import import_regions
from densessl.regions.report import format_statistics, statistics
from densessl.regions.select import PRESETS
from densessl.regions.store_format import StoreError
from densessl.registry import REGION_GENERATORS
from densessl.wording import count

SOURCE = "a folder of images, a list file or a COCO json"
GENERATORS = {
    "fast": "FastSelectiveSearch",
    "diverse": "DiverseSelectiveSearch",
    "selectivesearch": "SelectiveSearchPackage",
    "opencv": "OpenCVSelectiveSearch",
    "grid": "Grid",
    "random": "RandomBoxes",
}


def generator_config(name: str, options: dict, max_side: int | None = None) -> dict:
    """Return the config of a region generator, with its arguments checked.

    Args:
        name: a key of ``GENERATORS``.
        options: arguments of the generator.
        max_side: its argument ``max_side``.

    Raises:
        SettingError: the generator does not take one of the arguments, or not the given value.
    """
    options = options | ({} if max_side is None else {"max_side": max_side})
    takes = list(inspect.signature(REGION_GENERATORS.get(GENERATORS[name])).parameters)
    for option in options:
        if option not in takes:
            raise SettingError(f"generator {name} takes no {option!r}, but {', '.join(takes)}")
    config = dict(type=GENERATORS[name], **options)
    try:
        REGION_GENERATORS.build(dict(config))
    except TypeError as error:
        raise SettingError(f"generator {name} does not take {options}: {error}") from error
    return config


def run_build(args: argparse.Namespace) -> None:
    generator = generator_config(args.generator, args.generator_options, args.max_side)
    with remedies(source=f"Give {SOURCE} as DATA", root="Name that folder with --root FOLDER"):
        store = build(
            args.data,
            args.out,
            generator,
            per_image=args.per_image or None,
            draws=args.draws,
            workers=args.workers,
            seed=args.seed,
            root=args.root,
            select=PRESETS[args.select],
        )
    unreadable = store.manifest["about"]["unreadable"]
    print(format_statistics(statistics(store), [f"{path}: {reason}" for path, reason in unreadable.items()]))


def run_check(args: argparse.Namespace) -> None:
    if args.picture and not args.data:
        raise SettingError("--picture needs --data, the images to draw on")
    with remedies(source=f"Give {SOURCE} with --data"):
        report = check(args.out, args.coco, args.data, args.picture)
    print(report)
    if report.changed:
        raise StoreError(
            f"{count(len(report.changed), 'image')} of {args.data} changed since the regions were made, such as "
            f"{report.changed[0]!r}: build the store of these images anew"
        )


def run_import(args: argparse.Namespace) -> None:
    with remedies(source=f"Give {SOURCE} with --data"):
        print(import_regions(args.source, args.out, args.format, args.data, args.top))


def parser() -> argparse.ArgumentParser:
    """Build the argument parser."""
    top = argparse.ArgumentParser(
        prog="densessl regions",
        description="Build, check and import region stores.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    make = commands.add_parser(
        "build",
        help="make the regions of all images of a data set",
        description="Make the regions of all images of a data set. You can stop it at any time: the same command "
        "continues, repeats no image, and writes the same bytes in the end.",
    )
    make.add_argument("data", help="folder of images (searched recursively), list file or COCO json")
    make.add_argument("out", help="folder of the store")
    make.add_argument("--generator", choices=list(GENERATORS), default="fast", help="default: fast")
    make.add_argument(
        "--generator-options",
        nargs="+",
        action=Options,
        default={},
        metavar="KEY=VALUE",
        help="arguments of the generator; see densessl/regions/generators.py and fast.py",
    )
    make.add_argument("--max-side", type=int, metavar="P", help="shrink images to this longest side first")
    make.add_argument(
        "--per-image",
        type=int,
        default=1000,
        metavar="K",
        help="keep the first K regions of an image, 0 for all; a region takes 10 bytes, and 100 per "
        "image take 1.3 GB for "
        "ImageNet. The default, 1000, keeps nearly all, because methods select from them anew in every epoch",
    )
    make.add_argument(
        "--select",
        choices=list(PRESETS),
        default="none",
        help="store only the regions that a method selects, selected once for each draw (default: none; methods then "
        "select during training)",
    )
    make.add_argument("--draws", type=int, default=1, metavar="D", help="make regions D times; epochs use them in turn")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    make.add_argument(
        "--workers", type=int, default=cores, metavar="N", help=f"number of processes (default: all {cores} cores)"
    )
    make.add_argument("--seed", type=int, default=0, help="seed of all random numbers (default: %(default)s)")
    make.add_argument("--root", help="folder that the paths of a list or json are relative to")
    make.set_defaults(run=run_build)

    checking = commands.add_parser("check", help="check a store, count its regions, and measure its recall")
    checking.add_argument("out", help="folder of the store")
    checking.add_argument("--coco", metavar="INSTANCES.json", help="annotations to measure recall against")
    checking.add_argument("--data", help="folder of the images, for the picture and to see which changed")
    checking.add_argument("--picture", metavar="OUT.png", help="draw boxes on a few images into this file")
    checking.set_defaults(run=run_check)

    bring = commands.add_parser("import", help="make a store from regions made elsewhere")
    bring.add_argument("source", help="COCO json, npz, or pickle of MMDetection or Detectron2 (no code in it is run)")
    bring.add_argument("out", help="folder of the store")
    bring.add_argument("--format", choices=("auto", "coco", "npz", "pickle"), default="auto", help="default: auto")
    bring.add_argument("--data", help="folder, list or COCO json of the images, if the source lacks names or sizes")
    bring.add_argument("--top", type=int, metavar="K", help="keep the best K regions of an image")
    bring.set_defaults(run=run_import)
    for command in (make, checking, bring):
        add_debug(command)
    tell_errors_in_a_line(top)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    args = parser().parse_args(argv)
    after_interrupt = "; the same command continues from here" if args.run is run_build else ""
    return guarded(lambda: args.run(args), args.debug, after_interrupt)
