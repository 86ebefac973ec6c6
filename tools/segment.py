"""``densessl segment`` from a checkout. See ``--help``."""

import sys

from densessl.cli.segment import main

if __name__ == "__main__":
    sys.exit(main())
