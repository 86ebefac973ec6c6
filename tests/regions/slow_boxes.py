"""A generator for tests of the builder, in a module of its own: builders to be killed are processes of their own."""

import os
import time
from dataclasses import dataclass

import numpy as np
from PIL import Image

from densessl.regions.build import build
from densessl.regions.proposals import Proposals
from densessl.registry import REGION_GENERATORS

LOG, SECONDS = "SLOW_BOXES_LOG", "SLOW_BOXES_SECONDS"
BLUE = 77  # of the images, not of other pictures


def write_images(folder, count):
    """Images whose red and green are their number; three of each basename."""
    for number in range(count):
        place = folder / f"n{number % 3}" / f"{number // 3}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        size = (20 + number % 7, 10 + number % 5)
        Image.new("RGB", size, (number % 256, number // 256, BLUE)).save(place)
    return folder


def number_of(path):
    """The number of the image at a path."""
    folder, name = path.split("/")
    return 3 * int(name.removesuffix(".png")) + int(folder[1])


@REGION_GENERATORS.register_module()
@dataclass(frozen=True)
class SlowBoxes:
    """Random boxes. The environment may say how long an image takes at most, and a file where the numbers of the images
    that are begun go, each with that of the process.

    Attributes:
        fails_at: number of an image that it cannot do.
    """

    fails_at: int | None = None

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> Proposals:
        red, green, blue = image[0, 0].tolist()
        if blue == BLUE:
            if LOG in os.environ:
                with open(os.environ[LOG], "a") as file:
                    file.write(f"{red + 256 * green} {os.getpid()}\n")
            if red + 256 * green == self.fails_at:
                raise KeyError("lost")
            time.sleep(float(os.environ.get(SECONDS, 0)) * rng.random())
        corners = rng.random((rng.integers(1, 30), 2, 2)) * image.shape[1::-1]
        return Proposals.plain(np.sort(corners, 1))


def build_slowly(log, seconds, *args, **kwargs):
    """Build in a process of its own."""
    os.environ |= {LOG: str(log), SECONDS: str(seconds)}
    build(*args, **kwargs)
