"""Make Cityscapes ready to fine-tune on: ``python tools/cityscapes.py data/cityscapes``.

The folder has leftImg8bit/ and gtFine/, as their archives unpack. Written are
annotations/instancesonly_filtered_gtFine_{train,val}.json for instances (COCO's format) and
gtFine/*/*/*_gtFine_labelTrainIds.png for semantic segmentation. cityscapesscripts is not needed.
"""

import argparse
import sys
from collections.abc import Sequence

from densessl.finetune.cityscapes import prepare_cityscapes
from densessl.pretraining import workers


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 done, 2 files are missing or of another kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", help="folder with leftImg8bit/ and gtFine/")
    parser.add_argument("--splits", nargs="+", default=["train", "val"], help="folders of those two")
    parser.add_argument("--workers", default="auto", help="processes; by default the cores there are, at most 16")
    args = parser.parse_args(argv)
    try:
        made = prepare_cityscapes(args.root, args.splits, workers(args.workers))
    except (OSError, ValueError, ImportError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    for file, images, instances, crowds in made:
        print(f"{file}: {images} images, {instances} instances, {crowds} groups of them")
    return 0


if __name__ == "__main__":
    sys.exit(main())
