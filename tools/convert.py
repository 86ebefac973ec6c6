"""``densessl convert`` from a checkout. See ``--help``."""

import sys

from densessl.cli.convert import main

if __name__ == "__main__":
    sys.exit(main())
