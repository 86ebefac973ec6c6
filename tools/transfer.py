"""What pretraining is worth: ``python tools/transfer.py compare --config C --init random=none --init a=a.pth …``."""

import argparse
import sys
from collections.abc import Sequence

from densessl.cli.compare import add_compare


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. Returns its exit code."""
    parser = argparse.ArgumentParser(prog="transfer.py", description=__doc__)
    add_compare(parser.add_subparsers(required=True, metavar="COMMAND"))
    args = parser.parse_args(argv)
    return args.run(args)


if __name__ == "__main__":
    sys.exit(main())
