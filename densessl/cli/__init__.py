"""The command ``densessl``, and the same commands as ``python -m densessl`` and ``tools/*.py``.

A command is a module of this package with ``main(argv) -> exit code``. It is imported when it is asked for, so that
``densessl --help`` takes no time.
"""

import sys
from collections.abc import Sequence
from importlib import import_module

from densessl.version import __version__
from densessl.wording import suggestion

COMMANDS = {
    "train": "pretrain a backbone or a detector, or train a detector: anything a config describes",
    "regions": "make, check and import stores of regions",
    "look": "look into a checkpoint",
    "export": "hand pretrained weights to MMDetection or another library",
    "convert": "convert a public checkpoint",
    "compare": "train one config from several starts and compare them",
    "segment": "segment with a trained DenseSiam and measure it",
    "cityscapes": "make Cityscapes ready to fine-tune on",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. Returns its exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help"):
        rows = "\n".join(f"  {name:12}{text}" for name, text in COMMANDS.items())
        print(f"usage: densessl COMMAND …\n\n{rows}\n\ndensessl COMMAND --help says more. densessl --version")
        return 0 if argv else 2
    if argv[0] == "--version":
        print(__version__)
        return 0
    name, *words = argv
    if name not in COMMANDS:
        print(f"error: densessl has no command {name!r}; {suggestion(name, COMMANDS)}", file=sys.stderr)
        return 2
    return import_module(f"densessl.cli.{name}").main(words)
