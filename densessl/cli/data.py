"""``densessl data``: check a data set before training on it."""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from densessl.budget import DEFAULT, allowed
from densessl.cli.guard import EXIT_CODES, add_debug, guarded
from densessl.cli.options import Options, add_own_data
from densessl.configs import shipped_configs
from densessl.data.sources import remedies
from densessl.datacheck.clean_list import write_clean
from densessl.datacheck.contact_sheet import thumbnails
from densessl.datacheck.report_html import as_html
from densessl.datacheck.report_text import as_text
from densessl.datacheck.run import Checked, check, images_of_sets
from densessl.datacheck.scan import worker_count
from densessl.datacheck.sections import sections, verdict
from densessl.datacheck.sets import ImageSet, of_config, of_places
from densessl.errors import DATA, DONE, SettingError
from densessl.files import written_whole
from densessl.run_settings import OWN_DATA, RunSettings
from densessl.wording import at_least, count

DETECTOR = "transfer/coco/retinanet_r50_fpn_1x"  # whose reader reads labels that come without a config
EXAMPLE = "pixpro_r18"
LISTS = (".txt", ".lst")
FORWARDED = ("data_root", *OWN_DATA, "classes")  # options that training takes as well


def parser() -> argparse.ArgumentParser:
    """Build the argument parser."""
    top = argparse.ArgumentParser(
        prog="densessl data",
        description="Check a data set before training on it.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(dest="command", required=True)
    checking = commands.add_parser(
        "check",
        help="read every image once, and report bad images, duplicates, sizes, formats and labels",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    checking.add_argument(
        "places",
        nargs="*",
        metavar="ROOT|CONFIG",
        help="folder of images (searched recursively), .zip or .tar, list file or COCO json, or several of these; or a "
        "config, whose train and validation sets are checked with their labels",
    )
    checking.add_argument("--data-root", nargs="+", metavar="PLACE", help="data of a config, as of densessl train")
    checking.add_argument("--root", metavar="DIR", help="folder that the paths of a list or json are relative to")
    add_own_data(checking)
    checking.add_argument(
        "--set", dest="options", nargs="+", action=Options, default={}, metavar="KEY=VALUE", help="change a config"
    )
    checking.add_argument(
        "--bad-images",
        default=DEFAULT,
        metavar="N",
        help="images of a set that may be unreadable: a share (default: 0.1%%, at least one), a number, or 'none'; "
        "beyond it the exit code is 3",
    )
    checking.add_argument("--workers", default="auto", metavar="N", help="processes that read (default: auto)")
    checking.add_argument("--limit", type=int, metavar="N", help="check the first N images of each set only")
    checking.add_argument("--report", metavar="OUT.html", help="write an HTML file with all tables and sample images")
    checking.add_argument("--samples", type=int, default=24, metavar="N", help="images in --report (default: 24)")
    checking.add_argument("--json", metavar="OUT.json", help="write all findings as JSON")
    checking.add_argument(
        "--write-clean", metavar="FILE.txt", help="write a list of the good images, for densessl train --data-root"
    )
    checking.add_argument(
        "--drop-duplicates", action="store_true", help="with --write-clean: list only the first of equal files"
    )
    add_debug(checking)
    return top


def run_check(args: argparse.Namespace) -> int:
    """Check data sets, print the report and write the files asked for. Returns the exit code."""
    processes = _checked(args)
    sets = _sets(args)
    total = images_of_sets(sets).total
    bar = Progress(
        "{task.description}",
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
        transient=True,
    )
    with bar:
        task = bar.add_task("reading images", total=total)
        found = check(sets, args.bad_images, processes, lambda number: bar.advance(task, number))
    following = _write_list(args, found)
    following += _next(args, found)
    said, parts = verdict(found.summary, args.bad_images), sections(found.summary)
    if args.json:
        with written_whole(args.json) as file:
            file.write_text(json.dumps(found.summary.as_dict(), indent=1) + "\n", encoding="ascii")
    if args.report:
        sheet = list(thumbnails(sets, found.images, found.summary.good, args.samples))
        text = as_html(_title(args), said, not found.summary.beyond, parts, following, sheet)
        with written_whole(args.report) as file:
            file.write_text(text, encoding="utf-8")
    print(as_text(said, parts, following))
    return DATA if found.summary.beyond else DONE


def _checked(args: argparse.Namespace) -> int:
    """Refuse wrong settings before any image is read. Returns the number of processes."""
    processes = worker_count(args.workers)
    allowed(args.bad_images, 1)
    if args.limit is not None:
        at_least("--limit", args.limit, 1)
    at_least("--samples", args.samples, 0)
    if args.drop_duplicates and not args.write_clean:
        raise SettingError("--drop-duplicates needs --write-clean FILE.txt")
    if args.write_clean and Path(args.write_clean).suffix.lower() not in LISTS:
        raise SettingError(f"--write-clean: found {args.write_clean}, expected a name that ends in .txt")
    for option in ("report", "json", "write_clean"):
        place = getattr(args, option)
        if place and Path(place).is_dir():
            raise SettingError(f"--{option.replace('_', '-')}: {place} is a folder, expected a file")
    return processes


def _sets(args: argparse.Namespace) -> list[ImageSet]:
    config = _config(args)
    if config is None:
        places = args.places or args.data_root
        if not places:
            raise SettingError("found no data; expected a folder, archive, list or COCO json, or a config")
        if args.places and args.data_root:
            raise SettingError(f"--data-root is for a config, and {' '.join(args.places)} is none")
        if args.options:
            raise SettingError("--set changes a config, and none is given")
        with remedies(root="--root DIR says which folder the paths are relative to"):
            return of_places(places, args.root, args.limit)
    own = {name: getattr(args, name) for name in (*OWN_DATA, "classes", "boxes_as_masks", "options")}
    where = "Say where the images are with --data-root PLACE"
    with remedies(source=where, root=where):
        return of_config(RunSettings(config, data_root=args.data_root, **own), args.limit)


def _config(args: argparse.Namespace) -> str | None:
    """The config to check the data of; None where places are given."""
    if not args.places and any(getattr(args, name) for name in OWN_DATA):
        return DETECTOR
    if len(args.places) != 1:
        return None
    (place,) = args.places
    stem = place.removeprefix("./").removeprefix("configs/").removesuffix(".py")
    named = not os.path.exists(place) and stem in shipped_configs()
    return place if named or place.endswith(".py") or "::" in place else None


def _title(args: argparse.Namespace) -> str:
    given = [*args.places, *(args.data_root or ())] or [getattr(args, name) for name in OWN_DATA if getattr(args, name)]
    return f"densessl data check {' '.join(map(str, given))}"


def _write_list(args: argparse.Namespace, found: Checked) -> list[str]:
    if not args.write_clean:
        return []
    keep = found.summary.good & ~found.summary.copy if args.drop_duplicates else found.summary.good
    written, odd = write_clean(args.write_clean, found.images, keep, 0)
    said = f"{args.write_clean} lists {count(written, 'good image')}"
    if len(found.sets) > 1:
        said += f" of {found.sets[0].name}"
    return [f"{said}{f'; {odd:,} have names that no list can hold' if odd else ''}."]


def _next(args: argparse.Namespace, found: Checked) -> list[str]:
    """What to run next."""
    config = _config(args)
    bad = max(each.unreadable for each in found.summary.sets)
    if config is None:
        places = args.places or args.data_root
        if args.write_clean:
            return [f"Next: densessl train {EXAMPLE} --data-root {shlex.quote(args.write_clean)}"]
        if found.summary.beyond:
            again = shlex.join(["densessl", "data", "check", *places, "--write-clean", "clean.txt"])
            return [f"Next, a list of the good images: {again}"]
        return [f"Next: {shlex.join(['densessl', 'train', EXAMPLE, '--data-root', *places])}"]
    words = ["densessl", "train", config]
    for name in FORWARDED:
        value = getattr(args, name)
        if value:
            words += [f"--{name.replace('_', '-')}", *([value] if isinstance(value, str) else value)]
    words += ["--boxes-as-masks"] * bool(args.boxes_as_masks)
    if found.summary.beyond:
        words += ["--bad-images", str(bad)]
        return [f"Next, mend or remove these files, or let training replace them: {shlex.join(words)}"]
    return [f"Next: {shlex.join(words)}"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    args = parser().parse_args(argv)
    return guarded(lambda: run_check(args), args.debug)
