"""``densessl export``: export pretrained weights to MMDetection or another library."""

import argparse
from collections.abc import Sequence

from torch import nn

from densessl.cli.guard import EXIT_CODES, add_debug, guarded
from densessl.errors import SETTINGS, SettingError
from densessl.files import require_other_file
from densessl.weights.detector.export import export_detector
from densessl.weights.detector.stock import build_detector
from densessl.weights.equality import feature_differences, part_differences
from densessl.weights.export import FORMATS, export_backbone, how_to_open
from densessl.weights.load import load_parts
from densessl.weights.parts import PARTS
from densessl.weights.read import BRANCHES, Opened, by_our_names, open_checkpoint, parts_in
from densessl.wording import count

DESCRIPTION = """Export pretrained weights to MMDetection or another library.

  densessl export work_dirs/x/epoch_100.pth r50.pth --to mmdet

A file for mmdet holds the backbone, and the neck and head if the pretraining had them. With --into CONFIG it is also
loaded into that MMDetection detector, and the features are compared. Files for torchvision, timm, detectron2,
safetensors and onnx hold the backbone only. The command prints how to use such a file: the call that makes timm's
model, the lines for detectron2's config, the inputs and outputs of the graph.

  densessl export work_dirs/x/epoch_5.pth detreg --to mmdet-detector

exports a whole detector: detreg.pth, and detreg.py, the stock config with the changes that the weights need. Fine-tune
it with densessl train detreg.py --data-root coco/."""

DETECTOR = "mmdet-detector"
LOADABLE = ("mmdet", "torchvision", "timm", "safetensors")  # formats that --into can load


def parser() -> argparse.ArgumentParser:
    """Build the argument parser."""
    parser = argparse.ArgumentParser(
        prog="densessl export",
        description=DESCRIPTION,
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", help="checkpoint of a pretraining, or a public one")
    parser.add_argument("out", help="file to write")
    parser.add_argument("--to", choices=(*FORMATS, DETECTOR), default="mmdet", help="format (default: mmdet)")
    parser.add_argument(
        "--branch",
        choices=BRANCHES,
        help="branch to export (default: the one that the paper transfers; online for densessl's own checkpoints)",
    )
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), help="parts to write (default: all)")
    parser.add_argument(
        "--size", type=int, metavar="SIDE", help="for --to onnx with a ViT: side of the images in pixels"
    )
    parser.add_argument(
        "--into", metavar="CONFIG", help="also load the file into this detector: a config file, or mmdet::NAME"
    )
    parser.add_argument(
        "--min-coverage",
        type=float,
        help="share of each part's tensors that --into must fill (default: 1)",
    )
    parser.add_argument(
        "--detector", metavar="CONFIG", help="config of the whole detector, if the checkpoint names no stock config"
    )
    add_debug(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    args = parser().parse_args(argv)
    return guarded(lambda: _export(args), args.debug)


def _export(args: argparse.Namespace) -> int:
    if args.detector and args.to != DETECTOR:
        raise SettingError(f"--detector: found --to {args.to}, expected {DETECTOR}")
    require_other_file(f"{args.out}.pth" if args.to == DETECTOR else args.out, args.checkpoint)
    if args.into and args.to not in LOADABLE:
        raise SettingError(f"--into: found --to {args.to}, expected one of {', '.join(LOADABLE)}")
    if args.to == DETECTOR:
        report = export_detector(args.checkpoint, args.out, args.detector)
        print(f"{report}\n{report.source}, and beside it the config that fine-tunes it")
        return 0
    if args.min_coverage is not None and not args.into:
        raise SettingError("--min-coverage needs --into, the config of the detector that the file is loaded into")
    args.min_coverage = 1.0 if args.min_coverage is None else args.min_coverage
    if not 0 <= args.min_coverage <= 1:
        raise SettingError(f"--min-coverage: found {args.min_coverage:g}, expected a share from 0 to 1")
    detector = args.into and build_detector(args.into)  # which may be refused, before anything is written
    source = open_checkpoint(args.checkpoint)
    args.branch = by_our_names(source, args.branch).branch
    export(source, args)
    return 0 if detector is None or fits(source, args, detector) else SETTINGS


def export(source: Opened, args: argparse.Namespace) -> None:
    """Write the file and print what it holds."""
    fingerprint = export_backbone(source, args.out, args.to, args.branch, parts=args.parts, size=args.size)
    print(f"{args.out}: {args.branch} backbone, {fingerprint}")
    usage = how_to_open(args.out, args.to, source, args.branch)
    if usage:
        print(f"{args.out}: {usage}")
    written = (args.parts or PARTS) if args.to == "mmdet" else ()
    for part, state in parts_in(source, args.branch).items():
        verb = "also" if part in written else "left out:"
        print(f"{args.out}: {verb} {args.branch} {part}, {count(len(state), 'tensor')}")


def fits(source: Opened, args: argparse.Namespace, detector: nn.Module) -> bool:
    """Load the file into the detector and compare features. Return whether they are equal (True if they cannot be
    compared).

    Raises:
        LoadError: the weights do not fit the detector.
    """
    reports = load_parts(detector, args.out, args.min_coverage)
    for report in reports.values():
        print(f"{args.into}: {report}")
    loaded = [part for part, report in reports.items() if report.applied]
    compared = {
        "backbone": feature_differences(detector.backbone, source, args.branch),
        "neck and head": part_differences(detector, source, args.branch, loaded),
    }
    if compared["backbone"] is None:
        print("features: not compared, because this is no ResNet or plain ViT, or its config is unknown")
    differences = {level: value for all_ in compared.values() for level, value in (all_ or {}).items()}
    exact = not any(differences.values())
    if differences:
        print(f"features: {'equal bit for bit' if exact else 'largest differences'} {differences}")
    return exact
