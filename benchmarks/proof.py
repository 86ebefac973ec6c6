"""Measure the benefit of pretraining: fine-tune backbones pretrained on unlabelled photos, and random ones.

    python benchmarks/proof.py --data DIR --jobs 2

DIR has `photos/` (any images), `raccoon_voc/` (Pascal VOC's layout, one class `raccoon`) and `coco128/` (COCO's layout,
{train,val}2017). Each method pretrains a ResNet-18 on the photos and on the images of both training splits, without
their labels, at 128 pixels for 24 epochs. Then a small RetinaNet is fine-tuned from each backbone and from random
weights: on `raccoon_voc` with 10 % and with all of the labels, on `coco128` with all objects as one class, and, for
information, with its eighty classes, for which 128 photos are too few. Its images have at most 256 pixels, and every
start has the same schedule.

Finished cells are small files in `benchmarks/proof/` and are not run again, so the command can be stopped and repeated;
a pretraining that was stopped resumes from its last epoch. `--only pixpro raccoon` runs a part. `--show` runs nothing
and prints the results so far. Backbones stay in `benchmarks/proof/runs/pretrain/`, which is too large to commit.
"""

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from densessl.comparison import (
    Cell,
    CompareError,
    Failure,
    Grid,
    Results,
    read_results,
    run_cells,
    run_grid,
    write_results,
)
from densessl.comparison.cells import RUN, read_record, record_path
from densessl.comparison.grid import cell_name, config_text, options_of

ROOT = Path(__file__).parents[1]
OUT = Path("benchmarks/proof")  # relative to ROOT, where all runs start, so that commands are the same everywhere
KEPT = ["default_hooks.checkpoint.interval=1", "default_hooks.checkpoint.max_keep_ckpts=1"]
SMALLER = ["views.0.size=128", "train_cfg.max_epochs=24"]
# The config of each method, and the changes to it.
METHODS = {
    "mocov2": ("configs/small/mocov2_r18.py", SMALLER),
    "densecl": ("configs/small/densecl_r18.py", SMALLER),
    "pixpro": ("configs/small/pixpro_instance_r18.py", []),
}
CLOCKS = {"time", "step_time", "data_time", "images_per_second"}
VOC = "configs/transfer/voc/retinanet_r18_256_voc.py"
COCO, OBJECT = (f"configs/transfer/coco/retinanet_r18_256_{kind}.py" for kind in ("coco", "object"))


class Transfer(NamedTuple):
    config: str
    folder: str  # relative to DIR
    labels: str
    steps: int
    classes: str | None = None
    seeds: int = 3
    evaluations: int = 5


TRANSFERS = {
    "raccoon_10pct": Transfer(VOC, "raccoon_voc", "10%", 250, "raccoon", seeds=5),  # 15 photos: runs differ much
    "raccoon": Transfer(VOC, "raccoon_voc", "all", 400, "raccoon"),
    "coco128_object": Transfer(OBJECT, "coco128", "all", 240),
    "coco128_object_short": Transfer(OBJECT, "coco128", "all", 120, seeds=5, evaluations=2),
    "coco128": Transfer(COCO, "coco128", "all", 120, evaluations=2),
}
SCALES = ["train_dataloader.dataset.pipeline.2.scale=(256,256)", "val_dataloader.dataset.pipeline.1.scale=(256,256)"]


def images(data: Path) -> list[str]:
    """The images for pretraining, relative to ``data``, in a fixed order: photos, and both training splits."""
    split = (data / "raccoon_voc/VOC2007/ImageSets/Main/trainval.txt").read_text().split()
    found = [path for path in (data / "photos").rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png")]
    found += [data / f"raccoon_voc/VOC2007/JPEGImages/{name}.jpg" for name in split]
    found += (data / "coco128/train2017").glob("*.jpg")
    return sorted(path.relative_to(data).as_posix() for path in found)


def pretraining(name: str, listed: Path, digest: str) -> Cell:
    """The cell that pretrains by a method on the images of a list."""
    from densessl.configs import load_config

    config, options = METHODS[name]
    changes = ["--cfg-options", *options, *KEPT]
    cfg = load_config(config)
    cfg.merge_from_dict(options_of([*options, *KEPT]))
    return Cell(
        name=f"pretrain/{name}",
        identity=dict(config=hashlib.sha256(config_text(cfg).encode()).hexdigest(), images=digest),
        command=[
            *(sys.executable, "tools/train.py", config, "--data-root", str(listed), "--work-dir", RUN, "--resume"),
            *changes,
        ],
        read=read_figures,
        keeps=("backbone.pth",),
        resumes=True,
    )


def said(cell: Cell, outcome: dict | Failure) -> None:
    """Print that a pretraining is done, or how it failed."""
    failed = isinstance(outcome, Failure)
    print(outcome if failed else f"{cell.name}: done, sitting {outcome['sittings']}", flush=True)


def read_figures(run: Path) -> dict:
    """The losses and figures that a pretraining logged at its end, by name."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    if not lines or not (run / "backbone.pth").is_file():
        raise ValueError(f"{run} has no log or no backbone.pth")
    return {key: value for key, value in lines[-1].items() if key not in CLOCKS}


def pretrain(data: Path, names: Sequence[str], redo: bool) -> None:
    """Pretrain by each method whose run is not done.

    Raises:
        CompareError: A run failed, or a backbone that is needed no longer exists and ``redo`` is not set.
    """
    listed, found = OUT / "runs" / "images.txt", images(data)
    listed.parent.mkdir(parents=True, exist_ok=True)
    listed.write_text("".join(f"{data.resolve() / name}\n" for name in found))
    digest = hashlib.sha256("\n".join(found).encode()).hexdigest()
    for name in names:
        record = record_path(OUT, f"pretrain/{name}")
        if record.is_file() and not backbone(name).is_file() and is_needed(name):
            if not redo:
                raise CompareError(f"{backbone(name)} is missing; --redo repeats it and the runs that start from it")
            record.unlink()
    cells = [pretraining(name, listed, digest) for name in names]
    _, failures = run_cells(cells, OUT, redo=redo, finished=said)
    if failures:
        raise CompareError("\n".join(map(str, failures)))


def is_needed(name: str) -> bool:
    """Whether a fine-tuning that starts from a method is not done."""
    return not all(
        record_path(OUT / part, cell_name(name, each.labels, seed)).is_file()
        for part, each in TRANSFERS.items()
        for seed in range(each.seeds)
    )


def backbone(name: str) -> Path:
    return OUT / "runs/pretrain" / name / "backbone.pth"


def transfer(data: Path, name: str, jobs: int, redo: bool) -> Results:
    """Fine-tune on a data set, from random weights and from each pretrained backbone."""
    chosen = TRANSFERS[name]
    os.environ.pop("CLASSES", None)
    os.environ |= {"CLASSES": chosen.classes} if chosen.classes else {}
    records = {start: read_record(OUT, f"pretrain/{start}") for start in METHODS}
    grid = Grid(
        config=chosen.config,
        inits={"random": None, **{start: str(backbone(start)) for start, record in records.items() if record}},
        out=OUT / name,
        seeds=range(chosen.seeds),
        labels=(chosen.labels,),
        steps=chosen.steps,
        evaluations=chosen.evaluations,
        data_root=str(data / chosen.folder),
        cfg_options=SCALES,
        hashes={start: record["files"]["backbone.pth"] for start, record in records.items() if record},
        threads=1,
    )
    return run_grid(grid, jobs, redo=redo)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 all is done, 1 some run failed, 2 nothing could be run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder with photos/, raccoon_voc/ and coco128/")
    parser.add_argument(
        "--only", nargs="+", choices=(*METHODS, *TRANSFERS), help="parts to run; by default all, in this order"
    )
    parser.add_argument("--jobs", type=int, default=1, help="number of simultaneous fine-tunings, of one thread each")
    parser.add_argument("--redo", action="store_true", help="repeat runs that were done with other settings")
    parser.add_argument("--show", action="store_true", help="run nothing, and print the results so far")
    args = parser.parse_args(argv)
    if not (args.show or args.data):
        parser.error("--data or --show is needed")
    data = args.data and Path(os.path.relpath(args.data, ROOT))
    os.chdir(ROOT)
    parts = args.only or [*METHODS, *TRANSFERS]
    failed = False
    try:
        if not args.show:
            pretrain(data, [name for name in METHODS if name in parts], args.redo)
        for name in TRANSFERS:
            if name in parts and (not args.show or (OUT / name / "grid.json").is_file()):
                results = read_results(OUT / name) if args.show else transfer(data, name, args.jobs, args.redo)
                failed |= bool(results.failures)
                print(write_results(results, OUT / name))
    except (CompareError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
