"""``python -m densessl COMMAND …``."""

import sys

from densessl.cli import main

if __name__ == "__main__":
    sys.exit(main())
