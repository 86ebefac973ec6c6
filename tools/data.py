"""``densessl data`` from a checkout. See ``--help``."""

import sys

from densessl.cli.data import main

if __name__ == "__main__":
    sys.exit(main())
