"""The command ``densessl``, and the same commands as ``python -m densessl`` and ``tools/*.py``.

Each command is a module of this package with ``main(argv) -> exit code``. It is imported only when it runs, so that
``densessl --help`` is fast.
"""

import sys
from collections.abc import Sequence
from importlib import import_module

from densessl.version import __version__
from densessl.wording import suggestion

COMMANDS = {
    "train": "pretrain a backbone or detector, or train a detector or segmentor, as a config describes",
    "data": "check a data set before training on it: bad images, duplicates, sizes, labels",
    "regions": "build, check and import region stores",
    "look": "inspect a checkpoint of a pretraining",
    "export": "export pretrained weights to MMDetection or another library",
    "convert": "convert a public checkpoint for MMDetection or another library",
    "compare": "train one config from several starts and compare them",
    "segment": "measure the unsupervised segmentation of a trained DenseSiam",
    "cityscapes": "prepare Cityscapes for fine-tuning",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help"):
        rows = "\n".join(f"  {name:12}{text}" for name, text in COMMANDS.items())
        print(
            f"usage: densessl COMMAND …\n\n{rows}\n\nRun densessl COMMAND --help for the options of a "
            "command, densessl --version for the version."
        )
        return 0 if argv else 2
    if argv[0] == "--version":
        print(__version__)
        return 0
    name, *words = argv
    if name not in COMMANDS:
        print(f"error: densessl has no command {name!r}; {suggestion(name, COMMANDS)}", file=sys.stderr)
        return 2
    return import_module(f"densessl.cli.{name}").main(words)
