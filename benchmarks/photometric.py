"""Compare the time of PixPro's photometric recipes at 224 x 224 in this library and in torchvision on PIL images.

    python benchmarks/photometric.py [--threads 1] [--device cpu] [--batch 32]

Both start from uint8 images and end with normalised tensors. The PIL side always runs in one process on the CPU,
whatever the thread count.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
import torchvision.transforms as T
from PIL import Image, ImageFilter

from densessl.augment import ColorJitter, GaussianBlur, Grayscale, Photometric, Solarize, normalize

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def recipe(blur: float, solarize: float) -> Photometric:
    return Photometric(
        [ColorJitter(0.4, 0.4, 0.2, 0.1, p=0.8), Grayscale(p=0.2), GaussianBlur(p=blur), Solarize(p=solarize)]
    )


def pil_recipe(blur: float, solarize: float) -> T.Compose:
    def gaussian(image: Image.Image) -> Image.Image:
        return image.filter(ImageFilter.GaussianBlur(np.random.uniform(0.1, 2.0)))

    return T.Compose(
        [
            T.RandomApply([T.ColorJitter(0.4, 0.4, 0.2, 0.1)], p=0.8),
            T.RandomGrayscale(0.2),
            T.RandomApply([gaussian], p=blur),
            T.RandomSolarize(128, p=solarize),
            T.ToTensor(),
            T.Normalize([m / 255 for m in MEAN], [s / 255 for s in STD]),
        ]
    )


def milliseconds(work: Callable[[], object], images: int, repeats: int, device: str) -> tuple[float, float]:
    """Median and best milliseconds per image of ``work``, which processes ``images`` images, over ``repeats`` runs."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        work()
        if device != "cpu":
            torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - start) / images)
    return float(np.median(times[1:])), min(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rng = np.random.default_rng(0)
    # Smooth random images, because the time of PIL's hue depends on the colours.
    coarse = torch.from_numpy(rng.random((args.batch, 3, 14, 14), np.float32))
    images = torch.nn.functional.interpolate(coarse, size=224, mode="bicubic").clamp(0, 1).mul(255).byte()
    pil = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
    images = images.to(args.device)
    print(f"{args.device}, batch {args.batch}, {args.threads} thread(s): ms an image, median (best)")
    for name, odds in {"view 1": (1.0, 0.0), "view 2": (0.1, 0.2)}.items():
        ours, theirs = recipe(*odds), pil_recipe(*odds)
        draws = torch.from_numpy(np.stack([ours.draw(rng) for _ in range(args.batch)]))

        def whole(ours=ours, draws=draws):
            return normalize(ours(images / 255, draws), MEAN, STD)

        def one_by_one(ours=ours, draws=draws):
            for i in range(args.batch):
                normalize(ours(images[i : i + 1] / 255, draws[i : i + 1]), MEAN, STD)

        def with_pil(theirs=theirs):
            for image in pil:
                theirs(image)

        for label, work in {"batched": whole, "one by one": one_by_one, "torchvision on PIL": with_pil}.items():
            median, best = milliseconds(work, args.batch, args.repeats, args.device)
            print(f"  {name}  {label:20s} {median:7.3f} ({best:.3f})")


if __name__ == "__main__":
    main()
