"""Images per second and core of the data of DETReg: regions from a store against selective search in the loader, in one
run on the same files.

    python benchmarks/detector_data.py IMAGES [--count 128] [--json out.json]

All rows make what `configs/detreg_deformable_detr_r50.py` asks for: decoded image, whole view, thirty regions ranked
anew, a patch of 128 x 128 of each, the numbers for their colours; in batches of 24, in one process with one thread.
They differ in where regions come from:

- `region store`: made once, by `FastSelectiveSearch`, and looked up;
- `FastSelectiveSearch in the loader`: the same regions, made again in every epoch;
- `OpenCV in the loader`: the released code's way: OpenCV's selective search on the image squeezed to 128 x 128. Where
  OpenCV comes without its contributed modules, the `selectivesearch` package takes its place, on an image whose longer
  side is 128.

Then, what the parts of the first row take. Seconds are of process CPU, the best of three passes; compilation and the
making of the store are not in them, the store's is told apart.
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
    """CPU seconds of this process that a call takes, the best of some."""
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        function()
        best = min(best, time.process_time() - start)
    return best


def generated(generator: dict) -> dict:
    """Config of the regions of a generator, made in the loader."""
    return dict(type="GeneratedRegions", generator=generator)


def official() -> dict[str, dict]:
    """Name and config of the released code's regions, or of what takes their place."""
    try:
        OpenCVSelectiveSearch()(np.zeros((16, 16, 3), np.uint8), np.random.default_rng(0))
    except ImportError:
        package = dict(type="SelectiveSearchPackage", max_side=128)
        return {"selectivesearch package in the loader": generated(package)}
    return {"OpenCV in the loader": generated(dict(type="OpenCVSelectiveSearch", resize=(128, 128)))}


def parts(data: RegionImages, indices: list[int]) -> dict[str, float]:
    """CPU seconds of what makes the samples of these images."""
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
    parser.add_argument("--count", type=int, default=128, help="images of a pass")
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
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
