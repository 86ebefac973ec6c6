"""``densessl export``: hand pretrained weights over."""

import argparse
from collections.abc import Sequence

from torch import nn

from densessl.cli.guard import EXIT_CODES, add_debug, guarded
from densessl.errors import SETTINGS, SettingError
from densessl.weights.detector.export import export_detector
from densessl.weights.detector.stock import build_detector
from densessl.weights.equality import feature_differences, part_differences
from densessl.weights.export import FORMATS, export_backbone, how_to_open
from densessl.weights.load import load_parts
from densessl.weights.parts import PARTS
from densessl.weights.read import BRANCHES, Opened, by_our_names, open_checkpoint, parts_in

DESCRIPTION = """Hand pretrained weights to MMDetection or another library.

  densessl export work_dirs/x/epoch_100.pth r50.pth --to mmdet

A file for mmdet has the backbone, and neck and head where the pretraining had them. With --into CONFIG it is also
loaded into that MMDetection detector, and the features are compared. torchvision, timm, detectron2, safetensors and
onnx take the backbone only; what the user of such a file has to know is printed: the call that makes timm's model,
the lines for detectron2's config, the graph's inputs and outputs.

  densessl export work_dirs/x/epoch_5.pth detreg --to mmdet-detector

hands a whole detector over: detreg.pth, and detreg.py, the stock config with what the weights need, which
densessl train detreg.py --data-root coco/ fine-tunes."""

DETECTOR = "mmdet-detector"
LOADABLE = ("mmdet", "torchvision", "timm", "safetensors")  # by --into


def parser() -> argparse.ArgumentParser:
    """The command line."""
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
        "--branch", choices=BRANCHES, help="branch to export: by default online, or the one that a paper transfers"
    )
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), help="parts to write; by default all there are")
    parser.add_argument("--size", type=int, metavar="SIDE", help="onnx graph of a ViT: side of its images in pixels")
    parser.add_argument("--into", metavar="CONFIG", help="try the file in a detector: a config file, or mmdet::NAME")
    parser.add_argument(
        "--min-coverage",
        type=float,
        default=1.0,
        help="share of each part's tensors that --into must fill (default: 1)",
    )
    parser.add_argument(
        "--detector", metavar="CONFIG", help="config of a whole detector, where the checkpoint names no stock one"
    )
    add_debug(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run. Returns the exit code."""
    args = parser().parse_args(argv)
    return guarded(lambda: _export(args), args.debug)


def _export(args: argparse.Namespace) -> int:
    if args.into and args.to not in LOADABLE:
        raise SettingError(f"--into: found --to {args.to}, expected one of {', '.join(LOADABLE)}")
    if args.to == DETECTOR:
        report = export_detector(args.checkpoint, args.out, args.detector)
        print(f"{report}\n{report.source}, and beside it the config that fine-tunes it")
        return 0
    if not 0 <= args.min_coverage <= 1:
        raise SettingError(f"--min-coverage: found {args.min_coverage:g}, expected a share from 0 to 1")
    detector = args.into and build_detector(args.into)  # which may be refused, before anything is written
    source = open_checkpoint(args.checkpoint)
    args.branch = by_our_names(source, args.branch).branch
    export(source, args)
    return 0 if detector is None or fits(source, args, detector) else SETTINGS


def export(source: Opened, args: argparse.Namespace) -> None:
    """Write the file and say what is in it."""
    fingerprint = export_backbone(source, args.out, args.to, args.branch, parts=args.parts, size=args.size)
    print(f"{args.out}: {args.branch} backbone, {fingerprint}")
    known = how_to_open(args.out, args.to, source, args.branch)
    if known:
        print(f"{args.out}: {known}")
    written = (args.parts or PARTS) if args.to == "mmdet" else ()
    for part, state in parts_in(source, args.branch).items():
        verb = "also" if part in written else "left out:"
        print(f"{args.out}: {verb} {args.branch} {part}, {len(state)} tensors")


def fits(source: Opened, args: argparse.Namespace, detector: nn.Module) -> bool:
    """Load the file into the detector and compare features. Returns whether they are equal, where they can be compared.

    Raises:
        LoadError: It does not take the weights.
    """
    reports = load_parts(detector, args.out, args.min_coverage)
    for report in reports.values():
        print(f"{args.into}: {report}")
    loaded = [part for part, report in reports.items() if report.applied]
    found = {
        "backbone": feature_differences(detector.backbone, source, args.branch),
        "neck and head": part_differences(detector, source, args.branch, loaded),
    }
    if found["backbone"] is None:
        print("features: not compared, since this is no ResNet or plain ViT, or its config is not known")
    differences = {level: value for all_ in found.values() for level, value in (all_ or {}).items()}
    exact = not any(differences.values())
    if differences:
        print(f"features: {'equal bit for bit' if exact else 'largest differences'} {differences}")
    return exact
