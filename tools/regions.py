"""Make, check and import stores of regions: ``python tools/regions.py build DATA OUT``. See ``--help``."""

import sys

from densessl.cli.regions import main

if __name__ == "__main__":
    sys.exit(main())
