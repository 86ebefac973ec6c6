"""``densessl train`` from a checkout. See ``--help``."""

import sys

from densessl.cli.train import main

if __name__ == "__main__":
    sys.exit(main())
