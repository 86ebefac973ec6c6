"""What the command lines of all commands share: options of the form ``KEY=VALUE``, and errors of one line."""

import argparse
import ast
import re
import sys
from typing import Any, NoReturn

from mmengine.config import DictAction

from densessl.errors import SETTINGS
from densessl.wording import nearest


class Options(DictAction):
    """MMEngine's ``KEY=VALUE``, which may be given several times; VALUE may also be ``dict(type=…)``, or a list of
    such. A word without ``=``, an empty name in KEY, or a VALUE that cannot be read is a clear error."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        options = dict(getattr(namespace, self.dest) or {})
        for word in values:
            key, equals, value = word.partition("=")
            if not equals or not all(key.split(".")):
                raise argparse.ArgumentError(self, f"found {word!r}, expected KEY=VALUE")
            try:
                options[key] = read_value(value)
            except (ValueError, SyntaxError, AssertionError, RecursionError):
                raise argparse.ArgumentError(
                    self, f"{key}: found {value!r}, expected a word, a number, a list, or dict(name=value, …)"
                ) from None
        setattr(namespace, self.dest, options)


def read_value(text: str) -> Any:
    """Read the VALUE of ``KEY=VALUE``. What contains a dict is read as Python, everything else as MMEngine reads it.

    Raises:
        ValueError, SyntaxError, AssertionError, RecursionError: the text is no value.
    """
    if re.match(r"\s*(\[|\(|\{|dict\()", text) and re.search(r"\bdict\(|\{", text):
        return _value(ast.parse(text.strip(), mode="eval").body)
    return DictAction._parse_iterable(text)  # it tells unbalanced brackets by assertions, or recurses


def _value(node: ast.expr) -> Any:
    """The value of a literal or of ``dict(…)``; a name stands for itself, as a bare word does in ``KEY=word``."""
    match node:
        case ast.List(elts) | ast.Tuple(elts):
            entries = [_value(entry) for entry in elts]
            return tuple(entries) if isinstance(node, ast.Tuple) else entries
        case ast.Call(ast.Name("dict"), [], keywords) if all(each.arg for each in keywords):
            return {each.arg: _value(each.value) for each in keywords}
        case ast.Dict(keys, entries) if None not in keys:
            return {_value(key): _value(entry) for key, entry in zip(keys, entries)}
        case ast.Name() | ast.Attribute():
            return ast.unparse(node)
        case ast.Set():  # which no config can hold
            raise ValueError(ast.unparse(node))
    return ast.literal_eval(node)


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
