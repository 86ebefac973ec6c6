"""``densessl convert``: convert public checkpoints for MMDetection."""

import argparse
from collections.abc import Sequence

from densessl.cli.guard import EXIT_CODES, add_debug, guarded
from densessl.cli.options import Options
from densessl.errors import SettingError
from densessl.files import require_other_file
from densessl.weights.detector.convert import convert_detector
from densessl.weights.detector.official_names import FAMILIES, family_of
from densessl.weights.export import FORMATS, convert_backbone, how_to_open
from densessl.weights.layouts.take import WRAPPERS
from densessl.weights.read import BRANCHES, Opened, open_checkpoint

DESCRIPTION = """Convert a public checkpoint for MMDetection or another library.

  densessl convert moco_v2_800ep_pretrain.pth.tar moco.pth

The layout of the file is recognised from its tensor names; docs/transfer.md lists the known layouts. The backbone is
written as by densessl export, with the facts that the layout implies (pixel mean and deviation, position of strides).

DETRs (DETR, UP-DETR, DETReg, Deformable DETR, Conditional DETR, DAB-DETR, DINO) are converted as whole detectors:
densessl convert checkpoint_imagenet.pth detreg writes detreg.pth and detreg.py, a config that you can fine-tune with
densessl train detreg.py --data-root coco/. DETRs with pre-norm layers are refused, because MMDetection has none;
--backbone converts their backbones. Nothing in a file is executed."""


def parser() -> argparse.ArgumentParser:
    """Build the argument parser."""
    parser = argparse.ArgumentParser(
        prog="densessl convert",
        description=DESCRIPTION,
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", help="the public file: torch, safetensors, or a pickle of arrays")
    parser.add_argument("out", help="file to write; for a whole detector, the name of its two files without suffix")
    parser.add_argument("--to", choices=FORMATS, default="mmdet", help="format of a backbone (default: mmdet)")
    parser.add_argument(
        "--branch", choices=BRANCHES, help="branch of the backbone (default: the one that the paper transfers)"
    )
    parser.add_argument(
        "--size", type=int, metavar="SIDE", help="for --to onnx with a ViT: side of the images in pixels"
    )
    parser.add_argument(
        "--prefix", default="", help="take tensors whose names begin with this prefix, and remove it: model.net."
    )
    parser.add_argument("--backbone", action="store_true", help="convert only the backbone of a DETR")
    parser.add_argument(
        "--drop-objects",
        action="store_true",
        help="skip objects in the file that are not tensors; none of them is run",
    )
    parser.add_argument(
        "--family",
        choices=("auto", *FAMILIES),
        default="auto",
        help="family of a DETR (default: recognised from its tensor names)",
    )
    parser.add_argument(
        "--coco-classes", action="store_true", help="keep the classes of a DETR that was fine-tuned on COCO"
    )
    parser.add_argument(
        "--options",
        nargs="+",
        action=Options,
        default={},
        metavar="KEY=VALUE",
        help="changes to the model of a DETR's stock config: backbone.dilations=1,1,1,2",
    )
    add_debug(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    args = parser().parse_args(argv)
    return guarded(lambda: _convert(args), args.debug)


def _convert(args: argparse.Namespace) -> None:
    for out in (args.out, f"{args.out}.pth"):  # a backbone's file, a detector's
        require_other_file(out, args.checkpoint)
    source = without_prefix(open_checkpoint(args.checkpoint, args.drop_objects), args.prefix)
    whole = not args.backbone and (args.family != "auto" or family_of(source.state) is not None)
    for_detrs = {"--family": args.family != "auto", "--coco-classes": args.coco_classes, "--options": args.options}
    for_backbones = {"--to": args.to != "mmdet", "--branch": args.branch, "--size": args.size}
    wrong = [option for option, given in (for_backbones if whole else for_detrs).items() if given]
    if wrong:
        content = "a whole detector; --backbone takes its backbone" if whole else "a backbone, and these are for DETRs"
        raise SettingError(f"{', '.join(wrong)}: {args.checkpoint} holds {content}")
    print("\n".join(whole_detector(source, args) if whole else backbone(source, args)))


def without_prefix(source: Opened, prefix: str) -> Opened:
    """Return the tensors whose names begin with a prefix, with the prefix removed. Prefixes that wrappers add
    (``module.``) are ignored, because no message shows them.

    Raises:
        SettingError: no name begins with the prefix.
    """
    if not prefix:
        return source
    names = {key: key if key.startswith(prefix) else WRAPPERS.sub("", key) for key in source.state}
    state = {name.removeprefix(prefix): source.state[key] for key, name in names.items() if name.startswith(prefix)}
    if not state:
        raise SettingError(
            f"--prefix {prefix}: no name in {source.name} begins with it; the first is {next(iter(source.state))}"
        )
    return source._replace(state=state)


def whole_detector(source: Opened, args: argparse.Namespace) -> list[str]:
    """Convert a DETR. Return lines to print."""
    report = convert_detector(source, args.out, args.family, args.coco_classes, args.options)
    return [str(report), f"{report.source}, and beside it the config that fine-tunes it"]


def backbone(source: Opened, args: argparse.Namespace) -> list[str]:
    """Convert a backbone. Return lines to print."""
    lines = convert_backbone(source, args.out, args.to, args.branch, args.size)
    usage = how_to_open(args.out, args.to, source, args.branch)
    return [*lines, f"{args.out}: {usage}"] if usage else lines
