"""Generators of regions that look at an image's size only, and those of other packages. The library's own that looks
at pixels is :class:`densessl.regions.FastSelectiveSearch`.

A generator is called with ((h, w, 3) uint8 RGB pixels, generator of random numbers) and returns
:class:`densessl.regions.Proposals`. Where it draws nothing it leaves the random numbers alone.
"""

import ctypes
import math
import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from densessl.errors import SettingError
from densessl.extras import import_extra
from densessl.regions.proposals import Proposals
from densessl.registry import REGION_GENERATORS


@REGION_GENERATORS.register_module()
@dataclass(frozen=True)
class Grid:
    """The same boxes in every image: for each scale and aspect ratio, boxes evenly spread from edge to edge.

    A box of scale s and aspect a is s √a of the image wide and s / √a high, at most all of it, so their number,
    :attr:`count`, is that of every image.

    Attributes:
        scales: roots of the boxes' share of the image, in the order of the boxes.
        aspects: width over height in units of the image's.
        overlap: neighbours share at least so much of their side, below 1.
    """

    scales: tuple[float, ...] = (0.75, 0.5, 0.25)
    aspects: tuple[float, ...] = (1.0, 0.5, 2.0)
    overlap: float = 0.5

    def __post_init__(self):
        if not self.scales or not all(0 < scale <= 1 for scale in self.scales):
            raise SettingError(f"Grid.scales is {self.scales}, expected numbers above 0, up to 1")
        if not self.aspects or min(self.aspects) <= 0:
            raise SettingError(f"Grid.aspects is {self.aspects}, expected positive numbers")
        if not 0 <= self.overlap < 1:
            raise SettingError(f"Grid.overlap is {self.overlap}, expected at least 0 and below 1")

    @property
    def count(self) -> int:
        """Boxes of an image."""
        return len(self._shares())

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> Proposals:
        return Proposals.plain(self._shares() * (image.shape[1::-1] * 2))

    def _shares(self) -> np.ndarray:
        """(count, 4) boxes in units of the image."""
        boxes = []
        for scale in self.scales:
            for aspect in self.aspects:
                width, height = min(1, scale * math.sqrt(aspect)), min(1, scale / math.sqrt(aspect))
                x, y = np.meshgrid(self._starts(width), self._starts(height))
                boxes.append(np.stack([x, y, x + width, y + height], -1).reshape(-1, 4))
        return np.concatenate(boxes).clip(0, 1)

    def _starts(self, side: float) -> np.ndarray:
        steps = math.ceil(round((1 - side) / (side * (1 - self.overlap)), 6))
        return np.linspace(0, 1 - side, steps + 1)


@REGION_GENERATORS.register_module()
@dataclass(frozen=True)
class RandomBoxes:
    """Boxes of any place, area and shape.

    Attributes:
        count: of the boxes of an image.
        area: least and greatest share of the image, between which its root is uniform.
        aspect: least and greatest width over height in pixels, between which its logarithm is uniform. A box that is
            longer than the image is cut to it.
    """

    count: int = 100
    area: tuple[float, float] = (0.01, 0.8)
    aspect: tuple[float, float] = (1 / 3, 3.0)

    def __post_init__(self):
        if self.count < 1:
            raise SettingError(f"RandomBoxes.count is {self.count}, expected a positive number")
        for name, (low, high), top in (("area", self.area, 1), ("aspect", self.aspect, math.inf)):
            if not 0 < low <= high <= top:
                raise SettingError(f"RandomBoxes.{name} is {(low, high)}, expected 0 < low <= high <= {top}")

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> Proposals:
        size = np.array(image.shape[1::-1], np.float64)
        root, shape, x, y = rng.random((4, self.count))
        low, high = np.sqrt(self.area)
        root = (low + (high - low) * root) * math.sqrt(size.prod())
        low, high = np.log(self.aspect) / 2
        shape = np.exp(low + (high - low) * shape)
        sides = np.minimum(np.stack([root * shape, root / shape], 1), size)
        corners = np.stack([x, y], 1) * (size - sides)
        return Proposals.plain(np.concatenate([corners, np.minimum(corners + sides, size)], 1))


@REGION_GENERATORS.register_module()
@dataclass(frozen=True)
class RandomPatches:
    """UP-DETR's random query patches (Dai et al., CVPR 2021; the released code): width and height independently
    uniform, in whole pixels, between ``min_side`` and the image's less that; then a place, uniform. None ends with the
    image, as the code has it. An image that is not longer than twice ``min_side`` on both sides has none.

    Attributes:
        count: of the boxes of an image.
        min_side: least side in pixels.
    """

    count: int = 10
    min_side: int = 8

    def __post_init__(self):
        for name in ("count", "min_side"):
            if getattr(self, name) < 1:
                raise SettingError(f"RandomPatches.{name} is {getattr(self, name)}, expected a positive number")

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> Proposals:
        height, width = image.shape[:2]
        if min(width, height) <= 2 * self.min_side:
            return Proposals.plain([])
        boxes = []
        for _ in range(self.count):
            w, h = (rng.integers(self.min_side, side - self.min_side, endpoint=True) for side in (width, height))
            x, y = rng.integers(width - w), rng.integers(height - h)
            boxes.append((x, y, x + w, y + h))
        return Proposals.plain(boxes)


@REGION_GENERATORS.register_module()
@dataclass(frozen=True)
class SelectiveSearchPackage:
    """Selective search of the package ``selectivesearch`` as it is: slow, and widely used. Regions come in its order,
    start regions and then their groupings, each box once; levels are worked out from the parts it names.

    Attributes:
        scale, sigma, min_size: of the start segmentation, as of ``skimage.segmentation.felzenszwalb``.
        max_side: shrink larger images to this longest side first.
    """

    scale: float = 100.0
    sigma: float = 0.8
    min_size: int = 50
    max_side: int | None = None

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> Proposals:
        selective_search = import_extra("selectivesearch", type(self).__name__).selective_search
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of local binary patterns of floating-point images
            pixels = shrunk(image, self.max_side)
            _, regions = selective_search(pixels, self.scale, self.sigma, self.min_size)
        # Its rectangles leave out their last column and row: width is the difference of the outermost pixels.
        corners = np.array([region["rect"] for region in regions], np.float64)
        boxes = np.concatenate([corners[:, :2], corners[:, :2] + corners[:, 2:] + 1], 1)
        levels = _levels([region["labels"] for region in regions])
        return _in_source(boxes, levels, pixels, image)


@REGION_GENERATORS.register_module()
@dataclass(frozen=True)
class OpenCVSelectiveSearch:
    """Selective search of OpenCV's contributed modules. Boxes come in its order, which is random: see the ranking
    ``"uijlings"`` of :class:`densessl.regions.select.TopK`. It does not tell levels, so all are 1.

    Attributes:
        mode: ``"fast"`` or ``"quality"``.
        resize: (width, height) to resize images to first; DETReg: (128, 128).
        max_side: or shrink larger images to this longest side.
    """

    mode: Literal["fast", "quality"] = "fast"
    resize: tuple[int, int] | None = None
    max_side: int | None = None

    def __post_init__(self):
        if self.mode not in ("fast", "quality"):
            raise SettingError(f"OpenCVSelectiveSearch.mode is {self.mode!r}, expected 'fast' or 'quality'")
        if self.resize is not None and self.max_side is not None:
            raise SettingError("OpenCVSelectiveSearch has resize and max_side, expected one of them")

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> Proposals:
        cv2 = _opencv()
        pixels = shrunk(image, self.max_side) if self.resize is None else cv2.resize(image, tuple(self.resize))
        search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
        search.setBaseImage(np.ascontiguousarray(pixels[..., ::-1]))
        if self.mode == "fast":
            search.switchToSelectiveSearchFast()
        else:
            search.switchToSelectiveSearchQuality()
        # Its order comes from rand() of the C library, which cv2.setRNGSeed() does not reach.
        ctypes.CDLL(None).srand(int(rng.integers(2**31)))
        found = search.process().astype(np.float64)
        boxes = np.concatenate([found[:, :2], found[:, :2] + found[:, 2:]], 1)
        return _in_source(boxes, np.ones(len(boxes), np.int64), pixels, image)


def _opencv():
    try:
        import cv2  # of the regions extra
    except ImportError:
        cv2 = None
    if not hasattr(cv2, "ximgproc"):
        found = "OpenCV is not installed" if cv2 is None else f"OpenCV {cv2.__version__} comes without them"
        raise ImportError(
            f"the generator needs OpenCV's contributed modules (cv2.ximgproc): {found}. They are in the package "
            "opencv-contrib-python-headless, which replaces opencv-python and opencv-python-headless and cannot be "
            "beside them: use an environment of its own; the store it makes is read without OpenCV"
        )
    cv2.setNumThreads(1)
    return cv2


def shrunk(image: np.ndarray, max_side: int | None) -> np.ndarray:
    """The image with its longest side at most ``max_side``, antialiased."""
    height, width = image.shape[:2]
    if max_side is None or max(width, height) <= max_side:
        return image
    size = [max(1, round(side * max_side / max(width, height))) for side in (width, height)]
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize(size, Image.Resampling.BILINEAR))


def _in_source(boxes: np.ndarray, levels: np.ndarray, pixels: np.ndarray, image: np.ndarray) -> Proposals:
    """Each box once, scaled from ``pixels`` to ``image``."""
    _, first = np.unique(boxes, axis=0, return_index=True)
    first.sort()
    # In this order a box that ends with the one image ends exactly with the other.
    return Proposals(boxes[first] * (image.shape[1::-1] * 2) / (pixels.shape[1::-1] * 2), levels[first])


def _levels(labels: list[list]) -> np.ndarray:
    """Levels of regions in the order they were made, each given by the start regions it consists of: those of its one
    part, then those of its other. So its parts are the latest that begin, and end, as it does."""
    begins, ends, levels = {}, {}, []
    for parts in labels:
        level = 1 if len(parts) == 1 else 1 + max(begins[parts[0]], ends[parts[-1]])
        begins[parts[0]] = ends[parts[-1]] = level
        levels.append(level)
    return np.array(levels, np.int64)
