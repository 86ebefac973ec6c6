"""Hand a pretrained backbone over: ``python tools/export.py work_dirs/x/epoch_100.pth r50.pth --to mmdet``.

``--to`` torchvision, timm, detectron2, safetensors or onnx write the backbone only. What the user of such a file has to
know is printed: the call that makes timm's model, ``timm.create_model("vit_base_patch16_224", num_classes=0,
final_norm=False)`` for SIM's ViT-B, the lines that detectron2's config needs, or the graph's inputs and outputs.

Neck and head go into a file for MMDetection where the pretraining had them. With ``--into CONFIG`` the file is also
loaded into that MMDetection detector, and the features are compared.

A whole detector is handed over by ``python tools/export.py work_dirs/x/epoch_5.pth detreg --to mmdet-detector``, which
writes ``detreg.pth`` and ``detreg.py``: the stock config with what the weights need, that
``python tools/train.py detreg.py --data-root coco/`` fine-tunes.

Exit codes: 0 done; 2 something does not fit or is not installed, and standard error says what: the checkpoint and the
format, or, with ``--into``, the file that was written and the detector.
"""

import argparse
import sys
from collections.abc import Sequence

from densessl import transfer
from densessl.weights.export import FORMATS, how_to_open
from densessl.weights.parts import PARTS
from densessl.weights.read import BRANCHES, Opened, by_our_names, open_checkpoint

DETECTOR = "mmdet-detector"
LOADABLE = ("mmdet", "torchvision", "timm", "safetensors")  # by --into


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 done, 2 something does not fit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("out", help="the file to write")
    parser.add_argument("--to", choices=(*FORMATS, DETECTOR), default="mmdet")
    parser.add_argument("--branch", choices=BRANCHES, help="by default the online one, or the one its paper transfers")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), help="what to write; by default all there is")
    parser.add_argument("--size", type=int, metavar="SIDE", help="of a ViT's graph for onnx: its images, in pixels")
    parser.add_argument("--into", metavar="CONFIG", help="try it: an MMDetection config file, or mmdet::NAME")
    parser.add_argument("--min-coverage", type=float, default=1.0, help="share of each of its parts to be filled")
    parser.add_argument("--detector", metavar="CONFIG", help="of a whole detector: the config, if it does not tell it")
    args = parser.parse_args(argv)
    if args.into and args.to not in LOADABLE:
        parser.error(f"--into tries files for {', '.join(LOADABLE)} in a detector, found --to {args.to}")
    try:
        if args.to == DETECTOR:
            report = transfer.export_detector(args.checkpoint, args.out, args.detector)
            print(f"{report}\n{report.source}, and beside it the config that fine-tunes it")
            return 0
        source = open_checkpoint(args.checkpoint)
        args.branch = by_our_names(source, args.branch).branch
        export(source, args)
        return 0 if args.into is None or fits(source, args) else 2
    except (OSError, ValueError, ImportError, transfer.LoadError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2


def export(source: Opened, args: argparse.Namespace) -> None:
    """Write the file and say what is in it."""
    fingerprint = transfer.export_backbone(source, args.out, args.to, args.branch, parts=args.parts, size=args.size)
    print(f"{args.out}: {args.branch} backbone, {fingerprint}")
    known = how_to_open(args.out, args.to, source, args.branch)
    if known:
        print(f"{args.out}: {known}")
    written = (args.parts or PARTS) if args.to == "mmdet" else ()
    for part, state in transfer.parts_in(source, args.branch).items():
        verb = "also" if part in written else "left out:"
        print(f"{args.out}: {verb} {args.branch} {part}, {len(state)} tensors")


def fits(source: Opened, args: argparse.Namespace) -> bool:
    """Load the file into the detector and compare features. Returns whether they are equal, where they can be compared.

    Raises:
        LoadError: It does not take the weights.
    """
    detector = transfer.build_detector(args.into)
    reports = transfer.load_parts(detector, args.out, args.min_coverage)
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
    exact = not any(differences.values())
    if differences:
        print(f"features: {'equal bit for bit' if exact else 'largest differences'} {differences}")
    return exact


if __name__ == "__main__":
    sys.exit(main())
