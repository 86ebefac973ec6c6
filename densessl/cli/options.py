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
