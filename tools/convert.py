"""Official checkpoints of DETRs for MMDetection: ``python tools/convert.py checkpoint_imagenet.pth detreg``.

Writes ``detreg.pth`` and ``detreg.py``, MMDetection's config with what the weights need of it; then
``python tools/train.py detreg.py --data-root coco/`` fine-tunes. DETR, UP-DETR, DETReg, Deformable DETR, Conditional
DETR, DAB-DETR and DINO are known; those with pre-norm layers are refused, since MMDetection has none.
"""

import argparse
import sys
from collections.abc import Sequence

from mmengine.config import DictAction

from densessl import transfer
from densessl.transfer.keymaps import FAMILIES


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 done, 2 the file could not be converted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="the official file")
    parser.add_argument("out", help="name of the two files to write")
    parser.add_argument("--family", choices=("auto", *FAMILIES), default="auto", help="by default as its names tell")
    parser.add_argument("--coco-classes", action="store_true", help="fine-tuned on COCO: keep its class branches")
    parser.add_argument(
        "--options",
        nargs="+",
        action=DictAction,
        default={},
        metavar="KEY=VALUE",
        help="changes to the stock config's model: backbone.dilations=1,1,1,2",
    )
    args = parser.parse_args(argv)
    try:
        report = transfer.convert_detector(args.checkpoint, args.out, args.family, args.coco_classes, args.options)
    except (OSError, ValueError, transfer.LoadError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    print(report)
    print(f"{report.source}, and beside it the config that fine-tunes it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
