"""Print time and recall of the region generators, and how both depend on the size of the images.

    python benchmarks/regions.py IMAGES INSTANCES.json [--opencv-python PYTHON] [--images 16] [--out regions.json]

    IMAGES, INSTANCES.json: a folder and COCO's annotations of it
    PYTHON: the Python of a separate environment with opencv-contrib-python-headless, which cannot be installed beside
        other builds of OpenCV, to compare with its fast mode

Seconds are CPU time of the process on one core, without decoding and compilation. ABO is the mean over all objects
(crowds excluded) of the best IoU among an image's first K boxes. AR is COCO's at K boxes without classes. All images
have a longest side of 500. The `selectivesearch` package returns segments first; a second row has its regions in our
order, latest merge first.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from PIL import Image

from densessl.regions import DiverseSelectiveSearch, FastSelectiveSearch, Proposals
from densessl.regions.generators import SelectiveSearchPackage
from densessl.regions.recall import AT, Recall

SIDE = 500
SIDES = (128, 192, 256, 320, 384, 500)
# Runs in the other environment: reads the images as npy files, and writes boxes and seconds to one npz.
OPENCV = """
import sys, time
import cv2, numpy as np
cv2.setNumThreads(1)
out = {}
for path in sys.argv[2:]:
    image = np.ascontiguousarray(np.load(path)[:, :, ::-1])
    start = time.process_time()
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(image)
    search.switchToSelectiveSearchFast()
    boxes = search.process().reshape(-1, 4)
    out[f"seconds {path}"] = time.process_time() - start
    out[path] = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)
np.savez(sys.argv[1], **out)
"""

# The boxes (B, 4) that a generator made of each image, and its seconds.
Made = list[tuple[np.ndarray, float]]


def load(folder: Path, annotations: Path, count: int | None) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Load images (h, w, 3) with a longest side of SIDE, and the boxes (G, 4) of each image's objects."""
    coco = json.loads(annotations.read_text())
    objects = {image["id"]: [] for image in coco["images"]}
    for item in coco["annotations"]:
        if not item["iscrowd"]:
            x, y, width, height = item["bbox"]
            objects[item["image_id"]].append([x, y, x + width, y + height])
    images, truth = [], []
    for entry in coco["images"][:count]:
        with Image.open(folder / entry["file_name"]) as image:
            source = np.array(image.size * 2)
            size = [max(1, round(side * SIDE / max(image.size))) for side in image.size]
            images.append(np.array(image.convert("RGB").resize(size, Image.Resampling.BILINEAR)))
        truth.append(np.array(objects[entry["id"]], np.float64).reshape(-1, 4) * (size * 2) / source)
    return images, truth


def timed(generator: Callable[..., Proposals], images: list[np.ndarray]) -> Made:
    rng = np.random.default_rng(0)
    generator(images[0], rng)  # compiles
    made = []
    for image in images:
        start = time.process_time()
        boxes = generator(image, rng).boxes
        made.append((boxes, time.process_time() - start))
    return made


def opencv(python: str, images: list[np.ndarray]) -> Made:
    """Run the fast mode of OpenCV's contributed selective search in its separate environment."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [f"{folder}/{number}.npy" for number in range(len(images))]
        for path, image in zip(paths, images):
            np.save(path, image)
        subprocess.run([python, "-c", OPENCV, f"{folder}/boxes.npz", *paths], check=True)
        with np.load(f"{folder}/boxes.npz") as found:
            return [(found[path], float(found[f"seconds {path}"])) for path in paths]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="IMAGES")
    parser.add_argument("annotations", type=Path, metavar="INSTANCES.json")
    parser.add_argument("--images", type=int, help="number of images to use, the first ones; by default all")
    parser.add_argument("--opencv-python", metavar="PYTHON")
    parser.add_argument("--sides", type=int, nargs="*", default=SIDES)
    parser.add_argument("--out", type=Path, help="also write the figures to this JSON file")
    args = parser.parse_args()
    images, truth = load(args.folder, args.annotations, args.images)
    figures = []

    def show(name: str, made: Made) -> None:
        recall = Recall(AT)
        for (boxes, _), objects in zip(made, truth):
            recall.add(boxes, objects)
        table = recall.table()
        abo, ar = table.abo["all"], table.ar["all"]
        seconds = float(np.mean([took for _, took in made]))
        figures.append(
            dict(generator=name, seconds=seconds, boxes=table.boxes, at=AT, abo=abo.tolist(), ar=ar.tolist())
        )
        cells = [name, f"{seconds:.3f}", f"{table.boxes:.0f}", *(f"{a:.3f} / {r:.3f}" for a, r in zip(abo, ar))]
        print("| " + " | ".join(cells) + " |", flush=True)

    print(f"{len(images)} images, {sum(map(len, truth))} objects; ABO / AR\n")
    print("| generator | s/image | boxes | " + " | ".join(f"@{k}" for k in AT) + " |\n" + "|---" * (3 + len(AT)) + "|")
    show("fast", timed(FastSelectiveSearch(), images))
    show("diverse", timed(DiverseSelectiveSearch(), images))
    package = timed(SelectiveSearchPackage(scale=100, sigma=0.8, min_size=50), images)
    show("selectivesearch, scale 100, σ .8, min 50", package)
    show("the same, latest merge first", [(boxes[::-1], took) for boxes, took in package])
    if args.opencv_python:
        show("OpenCV contrib, fast mode", opencv(args.opencv_python, images))
    for name, generator in (("fast", FastSelectiveSearch), ("diverse", DiverseSelectiveSearch)):
        for side in args.sides:
            show(f"{name}, max_side {side}", timed(generator(max_side=side), images))
    if args.out:
        args.out.write_text(json.dumps(dict(images=len(images), command=sys.argv, rows=figures), indent=1) + "\n")


if __name__ == "__main__":
    main()
