"""What the command lines of all commands share: options of the form ``KEY=VALUE``, and errors of one line."""

import argparse
import re
import sys
from typing import NoReturn

from mmengine.config import DictAction

from densessl.errors import SETTINGS
from densessl.wording import nearest


class Options(DictAction):
    """MMEngine's ``KEY=VALUE``, which may be given several times; a word without ``=`` is a clear error."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        before = dict(getattr(namespace, self.dest) or {})
        for value in values:
            if "=" not in value:
                raise argparse.ArgumentError(self, f"found {value!r}, expected KEY=VALUE")
        super().__call__(parser, namespace, values, option_string)
        setattr(namespace, self.dest, before | getattr(namespace, self.dest))


def add_own_data(parser: argparse.ArgumentParser) -> None:
    """Add the options that train a detector's config on the user's own labels."""
    own = parser.add_argument_group("a detector on your own labels")
    own.add_argument("--train-json", metavar="FILE", help="train set in COCO's format, instead of the config's data")
    own.add_argument("--val-json", metavar="FILE", help="validation set in COCO's format")
    own.add_argument("--images", metavar="DIR", help="folder of their images (default: the folder of each json)")
    own.add_argument("--val-images", metavar="DIR", help="folder of the images of --val-json (default: --images)")
    own.add_argument(
        "--voc-root",
        metavar="DIR",
        help="data in Pascal VOC's layout: Annotations, JPEGImages, ImageSets, also in VOC2007/",
    )
    own.add_argument(
        "--yolo-root", metavar="DIR", help="data in YOLO's layout: images/{train,val}, labels/{train,val}, data.yaml"
    )
    own.add_argument("--classes", metavar="NAME,NAME", help="classes to detect, in this order (default: all)")
    own.add_argument(
        "--boxes-as-masks",
        action="store_true",
        help="objects without a mask get their box as mask, for detectors that need masks",
    )


def tell_errors_in_a_line(parser: argparse.ArgumentParser) -> None:
    """Let a parser tell what is wrong with a command line in one line, with the nearest name, instead of the list of
    all options that argparse prints first."""

    def error(message: str) -> NoReturn:
        unknown = re.match(r"unrecognized arguments: (-\S+)", message)
        near = nearest(unknown[1], parser._option_string_actions) if unknown else []
        hint = f"did you mean {' or '.join(near)}?" if near else f"{parser.prog} --help has the options"
        print(f"error: {message.removeprefix('argument ')}; {hint}", file=sys.stderr)
        sys.exit(SETTINGS)

    parser.error = error
