"""``densessl cityscapes`` from a checkout. See ``--help``."""

import sys

from densessl.cli.cityscapes import main

if __name__ == "__main__":
    sys.exit(main())
