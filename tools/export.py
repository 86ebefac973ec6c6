"""Hand a pretrained backbone over: ``python tools/export.py work_dirs/x/epoch_100.pth r50.pth --to mmdet``.

The files for torchvision and timm are bare state dicts. With ``--to timm``, the call is printed that makes the model
which takes all of it and computes the same, for SIM's ViT-B
``timm.create_model("vit_base_patch16_224", num_classes=0, final_norm=False)``.

Neck and head go with it where the pretraining had them. With ``--into CONFIG`` the file is also loaded into that
MMDetection detector, and the features are compared.

A whole detector is handed over by ``python tools/export.py work_dirs/x/epoch_5.pth detreg --to mmdet-detector``, which
writes ``detreg.pth`` and ``detreg.py``: the stock config with what the weights need, that
``python tools/train.py detreg.py --data-root coco/`` fine-tunes.
"""

import argparse
import sys
from collections.abc import Sequence

from densessl import transfer
from densessl.transfer.export import FORMATS
from densessl.transfer.parts import PARTS
from densessl.transfer.read import BRANCHES, open_checkpoint

DETECTOR = "mmdet-detector"


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 done, 1 a part does not fit the detector, 2 there was nothing to export."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("out", help="the file to write")
    parser.add_argument("--to", choices=(*FORMATS, DETECTOR), default="mmdet")
    parser.add_argument("--branch", choices=BRANCHES, default="online")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), help="what to write; by default all there is")
    parser.add_argument("--into", metavar="CONFIG", help="try it: an MMDetection config file, or mmdet::NAME")
    parser.add_argument("--min-coverage", type=float, default=1.0, help="share of each of its parts to be filled")
    parser.add_argument("--detector", metavar="CONFIG", help="of a whole detector: the config, if it does not tell it")
    args = parser.parse_args(argv)
    if args.to == DETECTOR:
        return export_whole(args.checkpoint, args.out, args.detector)
    try:
        source = open_checkpoint(args.checkpoint)
        fingerprint = transfer.export_backbone(source, args.out, args.to, args.branch, parts=args.parts)
        print(f"{args.out}: {args.branch} backbone, {fingerprint}")
        written = transfer.parts_in(args.out)
        if args.to == "timm":
            name, arguments = transfer.timm_arguments(*transfer.read_backbone(source, args.branch))
            told = ", ".join([f'"{name}"', *(f"{key}={value!r}" for key, value in arguments.items())])
            print(f"{args.out}: for timm.create_model({told}), load_state_dict with strict=True")
    except (OSError, ValueError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    for part, state in transfer.parts_in(source, args.branch).items():
        verb = "also" if part in written else "left out:"
        print(f"{args.out}: {verb} {args.branch} {part}, {len(state)} tensors")
    if args.into is None:
        return 0
    try:
        detector = transfer.build_detector(args.into)
        reports = transfer.load_parts(detector, args.out, args.min_coverage)
    except (transfer.LoadError, FileNotFoundError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    for report in reports.values():
        print(f"{args.into}: {report}")
    loaded = [part for part, report in reports.items() if report.applied]
    found = {
        "backbone": transfer.feature_differences(detector.backbone, source, args.branch),
        "neck and head": transfer.part_differences(detector, source, args.branch, loaded),
    }
    if found["backbone"] is None:
        print("features: not compared, since this is no ResNet or plain ViT, or its config is not known")
    differences = {level: value for all_ in found.values() for level, value in (all_ or {}).items()}
    if not differences:
        return 0
    exact = not any(differences.values())
    print(f"features: {'equal bit for bit' if exact else 'largest differences'} {differences}")
    return 0 if exact else 1


def export_whole(checkpoint: str, out: str, detector: str | None) -> int:
    """The same for a whole detector."""
    try:
        report = transfer.export_detector(checkpoint, out, detector)
    except transfer.LoadError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except (OSError, ValueError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    print(report)
    print(f"{report.source}, and beside it the config that fine-tunes it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
