"""Compare the images per second and core of DETReg's data with regions from a store and with selective search in the
loader, on the same files.

    python benchmarks/detector_data.py IMAGES [--count 128] [--json out.json]

All rows produce the samples of `configs/detreg_deformable_detr_r50.py`: the decoded image, its whole view, thirty newly
ranked regions, a patch of 128 x 128 for each and the draws for the patches' colours, in batches of 24, in one process
with one thread. They differ in the source of the regions:

- `region store`: generated once, by `FastSelectiveSearch`, and looked up;
- `FastSelectiveSearch in the loader`: the same regions, generated again in every epoch;
- `OpenCV in the loader`: as in the released code, OpenCV's selective search on the image resized to 128 x 128. If
  OpenCV lacks its contributed modules, the `selectivesearch` package replaces it, on images with a longer side of 128.

A second table has the time of each part of the first row. Seconds are CPU time of the process in the best of three
passes, without compilation. The time to build the store is printed separately.
"""

import argparse
import io
import json
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from mmengine.config import Config

from densessl.data import RegionImages, collate_views
from densessl.data.decode import open_image
from densessl.data.detection import cut_patches
from densessl.data.whole import cut_whole, draw_whole
from densessl.regions import FastSelectiveSearch
from densessl.regions.build import build
from densessl.regions.generators import OpenCVSelectiveSearch

CONFIG = Path(__file__).parents[1] / "configs/detreg_deformable_detr_r50.py"
BATCH = 24
TOP = [dict(type="TopK", k=30, ranking="uijlings")]


def seconds(function: Callable[[], object], repeats: int = 3) -> float:
    """CPU seconds of this process per call, in the best of several calls."""
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        function()
        best = min(best, time.process_time() - start)
    return best


def generated(generator: dict) -> dict:
    """Config that generates regions in the loader."""
    return dict(type="GeneratedRegions", generator=generator)


def official() -> dict[str, dict]:
    """Name and config of the released code's regions, or of their replacement without OpenCV's contributed modules."""
    try:
        OpenCVSelectiveSearch()(np.zeros((16, 16, 3), np.uint8), np.random.default_rng(0))
    except ImportError:
        package = dict(type="SelectiveSearchPackage", max_side=128)
        return {"selectivesearch package in the loader": generated(package)}
    return {"OpenCV in the loader": generated(dict(type="OpenCVSelectiveSearch", resize=(128, 128)))}


def parts(data: RegionImages, indices: list[int]) -> dict[str, float]:
    """CPU seconds of each part of making the samples of these images."""
    handles = [open_image(data.path(index)) for index in indices]
    images = [handle.decode() for handle in handles]
    regions = [data.regions(data.images.paths[i], handle, 0, 0, i) for i, handle in zip(indices, handles)]
    rng = np.random.default_rng(0)
    steps = [draw_whole(rng, image.size, data.spec) for image in images]
    samples = [data[0, index] for index in indices[:BATCH]]
    work = {
        "decode": lambda: [open_image(data.path(index)).decode() for index in indices],
        "look up and rank regions": lambda: [
            data.regions(data.images.paths[i], handle, 0, 0, i) for i, handle in zip(indices, handles)
        ],
        "view": lambda: [cut_whole(image, own) for image, own in zip(images, steps)],
        "patches": lambda: [cut_patches(image, own.boxes, data.patch) for image, own in zip(images, regions)],
        "numbers of patches": lambda: [data.photometric.draw(rng) for own in regions for _ in own.boxes],
    }
    made = {name: seconds(function) / len(indices) for name, function in work.items()}
    return {**made, "collate": seconds(lambda: collate_views(samples)) / len(samples)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", metavar="IMAGES", help="folder, list or COCO json")
    parser.add_argument("--count", type=int, default=128, help="number of images per pass")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    config = Config.fromfile(CONFIG, import_custom_modules=False)
    FastSelectiveSearch()(np.zeros((64, 64, 3), np.uint8), np.random.default_rng(0))  # compiles
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        with redirect_stdout(io.StringIO()):
            store = build(args.images, folder, dict(type="FastSelectiveSearch"))
        made = (time.process_time() - start) / len(store)
        sources = {
            "region store": dict(type="RegionStore", path=folder),
            "FastSelectiveSearch in the loader": generated(dict(type="FastSelectiveSearch")),
            **official(),
        }
        data_sets = {
            name: RegionImages(args.images, dict(regions, select=TOP), config.view, photometric=config.photometric)
            for name, regions in sources.items()
        }
        first = data_sets["region store"]
        indices = [index % len(first) for index in range(args.count)]

        def epoch(data: RegionImages) -> None:
            for start in range(0, len(indices), BATCH):
                collate_views([data[0, index] for index in indices[start : start + BATCH]])

        figures = {name: args.count / seconds(lambda data=data: epoch(data)) for name, data in data_sets.items()}
        took = parts(first, indices)
    base = figures["region store"]
    print(f"{'':40s} images/s per core")
    for name, rate in figures.items():
        print(f"{name:40s} {rate:7.1f}   {base / rate:5.1f} x the time of the store's")
    print(f"\nthe store took {1000 * made:.0f} ms an image, once\n\nms an image, of the region store's row")
    for name, part in took.items():
        print(f"{name:40s} {1000 * part:7.2f}")
    if args.json:
        args.json.write_text(json.dumps(dict(rates=figures, seconds=took, store_seconds=made), indent=1))


if __name__ == "__main__":
    main()
