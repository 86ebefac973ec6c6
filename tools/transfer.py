"""``densessl compare`` from a checkout: ``python tools/transfer.py compare …``. See ``--help``."""

import sys

from densessl.cli import main

if __name__ == "__main__":
    sys.exit(main())
