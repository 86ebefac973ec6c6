"""Compare the images per second and core of the data path with those of the usual pipeline, on the same files.

    python benchmarks/data_path.py --images photos/ [--count 128] [--json out.json]

All rows run the two-view recipe of `configs/pixpro_r50.py` in one process with one thread:

- `torchvision/PIL`: decode with Pillow, then apply the recipe to each view as a PIL image, up to normalised tensors;
- `densessl, loader`: the work of a worker: decode once, cut two crops, draw, collate; the device does colour and blur;
- `densessl, all in the worker`: the same with `photometric_on="worker"`;
- `densessl, loader + CPU preprocessor`: the loader's work, and colour, blur and normalisation on this core.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from mmengine.config import Config
from PIL import Image, ImageFilter
from torchvision import transforms as T
from torchvision.transforms import functional as TF

from densessl.data import UnlabelledImages, collate_views
from densessl.data.demo import write_demo_photos
from densessl.preprocessor import ViewPreprocessor


class Blur:
    """The recipe's blur by Pillow."""

    def __call__(self, image: Image.Image) -> Image.Image:
        return image.filter(ImageFilter.GaussianBlur(torch.empty(()).uniform_(0.1, 2.0).item()))


def pil_pipeline() -> list:
    """The two views of the recipe as torchvision writes them."""
    head = [
        T.RandomResizedCrop(224, (0.08, 1.0)),
        T.RandomHorizontalFlip(),
        T.RandomApply([T.ColorJitter(0.4, 0.4, 0.2, 0.1)], 0.8),
        T.RandomGrayscale(0.2),
    ]
    tail = [T.ToTensor(), T.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
    solarize = T.RandomApply([T.Lambda(lambda image: TF.solarize(image, 128))], 0.2)
    return [T.Compose([*head, Blur(), *tail]), T.Compose([*head, T.RandomApply([Blur()], 0.1), solarize, *tail])]


def rate(function, count: int, repeats: int = 3) -> float:
    """Images per second of this process's CPU time, in the best of ``repeats`` passes."""
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        function()
        best = min(best, time.process_time() - start)
    return count / best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", help="folder, list or COCO json (default: built-in photos)")
    parser.add_argument("--count", type=int, default=128)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)

    views = Config.fromfile(Path(__file__).parents[1] / "configs/pixpro_r50.py").views
    source = args.images or str(write_demo_photos(Path("work_dirs/demo_photos")))
    dataset = UnlabelledImages(source, views)
    in_worker = UnlabelledImages(source, views, photometric_on="worker")
    indices = [i % len(dataset) for i in range(args.count)]
    pipelines, preprocessor = pil_pipeline(), ViewPreprocessor(views)

    def usual() -> None:
        for i in indices:
            with Image.open(dataset.path(i)) as opened:
                image = opened.convert("RGB")
            for pipeline in pipelines:
                pipeline(image)

    def ours(data: UnlabelledImages, finish=lambda batch: batch) -> None:
        for start in range(0, args.count, 32):
            finish(collate_views([data[0, i] for i in indices[start : start + 32]]))

    figures = {
        "torchvision/PIL": rate(usual, args.count),
        "densessl, loader": rate(lambda: ours(dataset), args.count),
        "densessl, all in the worker": rate(lambda: ours(in_worker), args.count),
        "densessl, loader + CPU preprocessor": rate(lambda: ours(dataset, preprocessor), args.count),
    }
    base = figures["torchvision/PIL"]
    for name, value in figures.items():
        print(f"{name:38s} {value:7.1f} images/s per core   {value / base:5.2f}x")
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
