"""Pretrain: ``python tools/train.py configs/pixpro_r50.py --data-root photos/``. See ``--help``."""

import sys

from densessl.engine.launch import main

if __name__ == "__main__":
    sys.exit(main())
