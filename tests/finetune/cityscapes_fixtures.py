"""A tiny data set in Cityscapes' layout, as its archives unpack: photos of noise with known instances."""

from pathlib import Path

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 96, 64
SPLITS = {"train": ("aachen", "bochum"), "val": ("frankfurt",)}
# Rectangles (x, y, width, height), later ones on top, with the instance id of their pixels and the name of the class
# that semantic segmentation has for them; None where it ignores them.
BACKGROUND = (0, None)  # unlabeled
OBJECTS = [
    ((0, 32, 96, 32), 7, "road"),
    ((0, 0, 96, 10), 23, "sky"),
    ((90, 0, 6, 64), 4, None),  # static
    ((4, 12, 24, 40), 24000, "person"),
    ((20, 20, 30, 30), 26000, "car"),
    ((54, 16, 20, 36), 26001, "car"),
    ((76, 12, 12, 14), 33012, "bicycle"),
    ((76, 30, 12, 10), 30000, None),  # trailer: has instances, is not evaluated
    ((76, 44, 12, 12), 25, "rider"),  # a group of them
]


def instance_ids(shift: int = 0) -> np.ndarray:
    """The map (HEIGHT, WIDTH) of an image whose objects are so many pixels further down; there is no group in the
    first."""
    ids = np.full((HEIGHT, WIDTH), BACKGROUND[0], np.uint16)
    for (x, y, width, height), value, _ in OBJECTS if shift else OBJECTS[:-1]:
        ids[y + shift : y + shift + height, x : x + width] = value
    return ids


def label_ids(ids: np.ndarray) -> np.ndarray:
    return np.where(ids >= 1000, ids // 1000, ids).astype(np.uint8)


def write_cityscapes(root: Path, per_city: int = 2) -> Path:
    """``root/leftImg8bit`` and ``root/gtFine``, with photos of each city that are shifted by one pixel more each.
    Returns the root."""
    random = np.random.default_rng(0)
    for split, cities in SPLITS.items():
        for city in cities:
            images, maps = (root / kind / split / city for kind in ("leftImg8bit", "gtFine"))
            images.mkdir(parents=True)
            maps.mkdir(parents=True)
            for i in range(per_city):
                name = f"{city}_{i:06d}_000019"
                pixels = random.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(images / f"{name}_leftImg8bit.png")
                Image.fromarray(instance_ids(i)).save(maps / f"{name}_gtFine_instanceIds.png")
                Image.fromarray(label_ids(instance_ids(i))).save(maps / f"{name}_gtFine_labelIds.png")
    return root
