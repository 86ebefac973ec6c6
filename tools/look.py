"""Look into a checkpoint: ``python tools/look.py matching work_dirs/pixpro_r50/epoch_100.pth matches.png``. See
``--help``."""

import sys

from densessl.insight.look import main

if __name__ == "__main__":
    sys.exit(main())
