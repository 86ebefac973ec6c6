"""``densessl look``: compare a checkpoint of a pretraining with random weights of its config."""

import argparse
from collections.abc import Sequence

from densessl.cli.guard import EXIT_CODES, add_debug, guarded
from densessl.cli.options import tell_errors_in_a_line
from densessl.data.sources import remedies
from densessl.files import require_picture
from densessl.insight.checkpoints import load_backbones, load_images
from densessl.insight.knn import labelled_images, leave_one_out_knn, pooled_features
from densessl.insight.matching import dense_matching
from densessl.insight.pictures import draw_matches
from densessl.insight.spread import backbone_spread
from densessl.insight.stereo import motorcycle, relit
from densessl.insight.tables import print_table
from densessl.wording import count

COLLAPSED = 0.99  # between-image similarity
CELLS = (32, 48)  # height and width of the coarsest map: a cell is about 16 pixels of the stereo pair


def look_matching(args: argparse.Namespace) -> None:
    require_picture(args.out)
    trained, random, pixels = load_backbones(args.checkpoint, args.device)
    size = args.size or [number * max(trained.out_strides) for number in CELLS]
    pairs = {"same light": motorcycle(), "other light": relit(motorcycle())}
    for light, pair in pairs.items():
        result, start = (dense_matching(model, pair, size, args.level, **pixels) for model in (trained, random))
        figures = result.figures()
        width, height = result.cell
        print_table(
            f"Matching in the {light}: {count(len(result.query), 'cell')} of {width:.1f} x {height:.1f} px, "
            "errors in px",
            {"checkpoint": figures.pop("features"), "random init": start.figures()["features"], **figures},
        )
    draw_matches(pair, result, args.points).save(args.out)
    print(f"picture, in the {light}: {args.out}")


def look_spread(args: argparse.Namespace) -> None:
    trained, random, pixels = load_backbones(args.checkpoint, args.device)
    with remedies(source="Give a folder of images as FOLDER"):
        images = load_images(args.folder, args.images, args.size)
    mean, std = (images.new_tensor(pixels[name]).view(3, 1, 1) for name in ("mean", "std"))
    images = ((images - mean) / std).to(args.device)
    columns = {
        name: backbone_spread(model, images, args.level)
        for name, model in (("checkpoint", trained), ("random init", random))
    }
    print_table(f"Spread of the features of {count(len(images), 'image')}", columns)
    if columns["checkpoint"]["between_image_similarity"] > COLLAPSED:
        print(f"Collapsed: cells of different images are alike (similarity above {COLLAPSED}).")


def look_knn(args: argparse.Namespace) -> None:
    trained, random, pixels = load_backbones(args.checkpoint, args.device)
    with remedies(source="Give a folder with a subfolder of images for each class as FOLDER"):
        paths, labels, names = labelled_images(args.folder)
    columns = {}
    for name, model in (("checkpoint", trained), ("random init", random)):
        levels = pooled_features(model, paths, args.size, **pixels)
        columns[name] = {f"level {i}": leave_one_out_knn(x, labels, args.k) for i, x in enumerate(levels)}
    columns["chance"] = dict.fromkeys(columns["checkpoint"], labels.bincount().max().item() / len(labels))
    print_table(
        f"{count(args.k, 'nearest neighbour')}: {count(len(paths), 'image')} of "
        f"{count(len(names), 'class', 'classes')}, each left out once",
        columns,
    )


def parser() -> argparse.ArgumentParser:
    """Build the argument parser."""
    top = argparse.ArgumentParser(
        prog="densessl look",
        description="Inspect a checkpoint of a pretraining, and compare it with random weights of its config.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    matching = commands.add_parser("matching", help="do cells find their match in a stereo pair?")
    matching.add_argument("checkpoint", help="checkpoint of a pretraining")
    matching.add_argument("out", help="picture to write, such as matches.png")
    matching.add_argument(
        "--size",
        type=int,
        nargs=2,
        metavar=("H", "W"),
        help="size of the input; by default 32x48 cells of the coarsest map",
    )
    matching.add_argument(
        "--points", type=int, default=120, help="approximate number of matches to draw (default: %(default)s)"
    )
    matching.set_defaults(run=look_matching)
    spread = commands.add_parser("spread", help="do the features of different images differ?")
    spread.add_argument("checkpoint", help="checkpoint of a pretraining")
    spread.add_argument("folder", help="folder of images")
    spread.add_argument("--images", type=int, default=64, help="number of images to use (default: %(default)s)")
    spread.add_argument("--size", type=int, default=224, help="side of the input (default: %(default)s)")
    spread.set_defaults(run=look_spread)
    knn = commands.add_parser("knn", help="are images of one class nearest neighbours?")
    knn.add_argument("checkpoint", help="checkpoint of a pretraining")
    knn.add_argument("folder", help="folder with one subfolder of images for each class")
    knn.add_argument("-k", type=int, default=10, help="number of neighbours that vote (default: %(default)s)")
    knn.add_argument("--size", type=int, default=160, help="side of the input (default: %(default)s)")
    knn.add_argument("--device", default="cpu", help="device to run on (default: %(default)s)")
    knn.set_defaults(run=look_knn)
    for command in (matching, spread, knn):
        add_debug(command)
    for command in (matching, spread):
        command.add_argument(
            "--level", type=int, default=-1, help="index of the backbone's map; -1 is the last (default: %(default)s)"
        )
        command.add_argument("--device", default="cpu", help="device to run on (default: %(default)s)")
    tell_errors_in_a_line(top)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    args = parser().parse_args(argv)
    return guarded(lambda: args.run(args), args.debug)
