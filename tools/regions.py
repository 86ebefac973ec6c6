"""``densessl regions`` from a checkout. See ``--help``."""

import sys

from densessl.cli.regions import main

if __name__ == "__main__":
    sys.exit(main())
