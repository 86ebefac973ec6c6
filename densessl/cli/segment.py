"""``densessl segment``: measure how well the clusters of a trained DenseSiam segment labelled images."""

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist

from densessl.cli.guard import EXIT_CODES, add_debug, guarded
from densessl.cli.options import Options
from densessl.data.sources import remedies
from densessl.insight.checkpoints import usable_device
from densessl.insight.clustering import match, scores
from densessl.insight.segmentation import count_pixels, load_model, read_mapping
from densessl.insight.tables import print_table
from densessl.wording import count


def parser() -> argparse.ArgumentParser:
    """Build the argument parser."""
    parser = argparse.ArgumentParser(
        prog="densessl segment",
        description="Measure mIoU and pixel accuracy of a DenseSiam segmentation, with clusters matched to classes.\n"
        "Under torchrun the processes share the images.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", help="config of the pretraining")
    parser.add_argument("checkpoint", help="its checkpoint")
    parser.add_argument("--images", required=True, help="folder, list file or COCO json")
    parser.add_argument("--labels", required=True, help="folder with a PNG of the same name for each image")
    parser.add_argument("--ignore", type=int, default=255, help="label to ignore (default: %(default)s)")
    parser.add_argument("--mapping", help='JSON file {"label": class}; labels not in it are ignored')
    parser.add_argument(
        "--size", type=int, help="side of the square that images are resized to (default: the last view's)"
    )
    parser.add_argument("--batch-size", type=int, default=16, help="images at a time (default: %(default)s)")
    parser.add_argument(
        "--device",
        default="cuda" if torch.cuda.is_available() else "cpu",
        help="device to run on (default: %(default)s)",
    )
    parser.add_argument("--out", help="write the figures to this JSON file")
    parser.add_argument(
        "--set",
        "--cfg-options",
        dest="cfg_options",
        nargs="+",
        action=Options,
        default={},
        metavar="KEY=VALUE",
        help="change entries of the config",
    )
    add_debug(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    args = parser().parse_args(argv)
    return guarded(lambda: _segment(args), args.debug)


def _segment(args: argparse.Namespace) -> None:
    started = int(os.environ.get("WORLD_SIZE", 1)) > 1 and not dist.is_initialized()
    if args.device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    if started:
        dist.init_process_group("nccl" if args.device == "cuda" else "gloo")
    model, objective, size = load_model(args.config, args.checkpoint, args.cfg_options)
    mapping = read_mapping(args.mapping) if args.mapping else None
    with remedies(source="Give a folder of images, a list file or a COCO json with --images"):
        counts, labelled = count_pixels(
            model.to(usable_device(args.device)),
            objective,
            args.images,
            args.labels,
            size if args.size is None else args.size,
            args.ignore,
            mapping,
            args.batch_size,
        )
    classes = match(counts)
    quality = scores(counts, classes.to(counts.device))
    if not dist.is_initialized() or dist.get_rank() == 0:
        figures = {"miou": quality.miou, "accuracy": quality.accuracy, "labelled": labelled}
        print_table(f"{args.checkpoint}: {count(len(counts), 'cluster')} matched to classes", {"": figures})
        if args.out:
            iou = [None if value != value else value for value in quality.iou.tolist()]  # JSON has no NaN
            result = {**figures, "iou": iou, "class_of_cluster": classes.tolist()}
            Path(args.out).write_text(json.dumps(result, indent=2))
    if started:
        dist.destroy_process_group()
