"""Segment with a trained DenseSiam and count: ``python tools/segment.py configs/densesiam_r18_coco27.py epoch_10.pth
--images val2017/ --labels labels27/``. See ``--help``."""

import sys

from densessl.insight.segment import main

if __name__ == "__main__":
    sys.exit(main())
