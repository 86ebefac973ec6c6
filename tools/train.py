"""Pretrain: ``python tools/train.py configs/pixpro_r50.py --data-root photos/``; train a detector from the result:
``python tools/train.py mmdet::retinanet/retinanet_r50_fpn_1x_coco --data-root coco/ --init r50.pth``.
See ``--help``."""

import sys

from densessl.cli.train import main

if __name__ == "__main__":
    sys.exit(main())
