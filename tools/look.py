"""``densessl look`` from a checkout. See ``--help``."""

import sys

from densessl.cli.look import main

if __name__ == "__main__":
    sys.exit(main())
