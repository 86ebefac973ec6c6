"""Hand a pretrained backbone over: ``python tools/export.py work_dirs/x/epoch_100.pth r50.pth --to mmdet``.

With ``--into CONFIG`` the file is also loaded into that MMDetection detector, and the features are compared.
"""

import argparse
import sys
from collections.abc import Sequence

from densessl.transfer import LoadError, build_detector, export_backbone, feature_differences, load_backbone
from densessl.transfer.export import BRANCHES, FORMATS


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 done, 1 the backbone does not fit the detector, 2 it could not be exported."""
    parser = argparse.ArgumentParser(description="Write the backbone of a densessl checkpoint for other libraries.")
    parser.add_argument("checkpoint")
    parser.add_argument("out", help="the file to write")
    parser.add_argument("--to", choices=FORMATS, default="mmdet")
    parser.add_argument("--branch", choices=BRANCHES, default="online")
    parser.add_argument("--into", metavar="CONFIG", help="try it: an MMDetection config file, or mmdet::NAME")
    parser.add_argument("--min-coverage", type=float, default=1.0, help="share of the detector's backbone to be filled")
    args = parser.parse_args(argv)
    try:
        fingerprint = export_backbone(args.checkpoint, args.out, args.to, args.branch)
        print(f"{args.out}: {args.branch} backbone, {fingerprint}")
    except (OSError, ValueError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    if args.into is None:
        return 0
    try:
        detector = build_detector(args.into)
        print(f"{args.into}: {load_backbone(detector, args.out, args.min_coverage)}")
    except (LoadError, FileNotFoundError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    difference = feature_differences(detector.backbone, args.checkpoint, args.branch)
    if difference is None:
        print("features: not compared, since this is no ResNet or the checkpoint does not tell its config")
        return 0
    exact = not any(difference.values())
    print(f"features: {'equal bit for bit' if exact else 'largest differences'} {difference}")
    return 0 if exact else 1


if __name__ == "__main__":
    sys.exit(main())
