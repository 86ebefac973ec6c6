"""Public checkpoints for MMDetection: ``python tools/convert.py moco_v2_800ep_pretrain.pth.tar moco.pth``.

Whose file it is shows in its names; docs/transfer.md lists the layouts known. Written is the backbone, with what the
layout tells about it (mean and deviation of pixels, where strides are), as tools/export.py writes one, for MMDetection
or another library (``--to``). Nothing that a file holds is executed.

Of DETRs (DETR, UP-DETR, DETReg, Deformable DETR, Conditional DETR, DAB-DETR, DINO) the whole detector is converted:
``python tools/convert.py checkpoint_imagenet.pth detreg`` writes ``detreg.pth`` and ``detreg.py``, MMDetection's config
with what the weights need of it; then ``python tools/train.py detreg.py --data-root coco/`` fine-tunes. Those with
pre-norm layers are refused, since MMDetection has none; ``--backbone`` takes their backbones.
"""

import argparse
import sys
from collections.abc import Sequence

from mmengine.config import DictAction

from densessl import transfer
from densessl.weights.detector.official_names import FAMILIES, family_of
from densessl.weights.export import FORMATS, how_to_open
from densessl.weights.layouts.take import WRAPPERS
from densessl.weights.read import BRANCHES, Opened, open_checkpoint


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="the public file: torch, safetensors, or a pickle of arrays")
    parser.add_argument("out", help="the file to write; of a whole detector the name of both")
    parser.add_argument("--to", choices=FORMATS, default="mmdet", help="of a backbone")
    parser.add_argument("--branch", choices=BRANCHES, help="of a backbone: by default the one its paper transfers")
    parser.add_argument("--size", type=int, metavar="SIDE", help="of a ViT's graph for onnx: its images, in pixels")
    parser.add_argument("--prefix", default="", help="of all names of interest, to take off: model.net.")
    parser.add_argument("--backbone", action="store_true", help="of a DETR: its backbone only")
    parser.add_argument(
        "--drop-objects",
        action="store_true",
        help="pass over objects in the file, of any kind but the operating system's; none is run",
    )
    parser.add_argument(
        "--family", choices=("auto", *FAMILIES), default="auto", help="of a DETR: by default as its names"
    )
    parser.add_argument("--coco-classes", action="store_true", help="of a DETR fine-tuned on COCO: keep its classes")
    parser.add_argument(
        "--options",
        nargs="+",
        action=DictAction,
        default={},
        metavar="KEY=VALUE",
        help="of a DETR: changes to the stock config's model: backbone.dilations=1,1,1,2",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 done, 2 the file could not be converted."""
    words = parser()
    args = words.parse_args(argv)
    try:
        source = open_checkpoint(args.checkpoint, args.drop_objects)
        source = without_prefix(source, args.prefix)
        whole = not args.backbone and (args.family != "auto" or family_of(source.state) is not None)
        of_detr = {"--family": args.family != "auto", "--coco-classes": args.coco_classes, "--options": args.options}
        of_backbone = {"--to": args.to != "mmdet", "--branch": args.branch, "--size": args.size}
        wrong = [word for word, given in (of_backbone if whole else of_detr).items() if given]
        if wrong:
            found = (
                "a whole detector; --backbone takes its backbone" if whole else "a backbone, and these are for DETRs"
            )
            words.error(f"{', '.join(wrong)}: {args.checkpoint} has {found}")
        print("\n".join(whole_detector(source, args) if whole else backbone(source, args)))
    except (OSError, ValueError, transfer.LoadError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    return 0


def without_prefix(source: Opened, prefix: str) -> Opened:
    """The file as if names that begin so did not, and there were no others. ValueError where none does.

    What wrappers put before names does not count, since no message shows it.
    """
    if not prefix:
        return source
    names = {key: key if key.startswith(prefix) else WRAPPERS.sub("", key) for key in source.state}
    state = {name.removeprefix(prefix): source.state[key] for key, name in names.items() if name.startswith(prefix)}
    if not state:
        raise ValueError(
            f"--prefix {prefix}: no name in {source.name} begins so; the first is {next(iter(source.state))}"
        )
    return source._replace(state=state)


def whole_detector(source: Opened, args: argparse.Namespace) -> list[str]:
    """Convert a DETR. Returns what to say."""
    report = transfer.convert_detector(source, args.out, args.family, args.coco_classes, args.options)
    return [str(report), f"{report.source}, and beside it the config that fine-tunes it"]


def backbone(source: Opened, args: argparse.Namespace) -> list[str]:
    """Convert a backbone. Returns what to say."""
    said = transfer.convert_backbone(source, args.out, args.to, args.branch, args.size)
    known = how_to_open(args.out, args.to, source, args.branch)
    return [*said, f"{args.out}: {known}"] if known else said


if __name__ == "__main__":
    sys.exit(main())
