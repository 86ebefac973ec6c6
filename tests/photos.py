"""Small images to pretrain on."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_photos(folder: Path, count: int = 9, width: int = 60, height: int = 50) -> Path:
    """Images of random pixels, ``0.png`` and so on. Returns ``folder``, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return folder
