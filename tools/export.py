"""``densessl export`` from a checkout. See ``--help``."""

import sys

from densessl.cli.export import main

if __name__ == "__main__":
    sys.exit(main())
