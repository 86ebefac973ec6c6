"""Generators of regions: those that use only an image's size, and those that wrap other packages.

The library's own selective search is :class:`densessl.regions.FastSelectiveSearch`. A generator is called with the
pixels, (h, w, 3) uint8 RGB, and a random generator, and returns :class:`densessl.regions.Proposals`.
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
    """The same boxes in every image: for each scale and aspect ratio, boxes spread evenly from edge to edge.

    A box of scale s and aspect a is s √a times as wide and s / √a times as high as the image, clipped to the image. All
    images have the same number of boxes, :attr:`count`.

    Attributes:
        scales: square roots of the boxes' share of the image's area, in the order of the boxes.
        aspects: aspect ratios of the boxes relative to the image's.
        overlap: least overlap of neighbouring boxes as a share of their side, below 1.
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
        """Number of boxes per image."""
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
    """Boxes of random position, area and aspect ratio.

    Attributes:
        count: number of boxes per image.
        area: range of a box's share of the image's area, whose square root is drawn uniformly.
        aspect: range of width over height in pixels, drawn log-uniformly. A box that is longer than the image is
            shortened to it.
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
    """UP-DETR's random query patches (Dai et al., CVPR 2021; released code).

    Width and height are whole pixels, drawn independently and uniformly from ``min_side`` to the image's side minus
    ``min_side``. The position is uniform too; as in the released code, no box touches the right or bottom border. An
    image with a side of at most twice ``min_side`` has no boxes.

    Attributes:
        count: number of boxes per image.
        min_side: least side of a box in pixels.
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
    """Selective search of the package ``selectivesearch``, which is slow and widely used.

    Boxes are in its order, initial segments and then merges, without duplicates. Levels are computed from the parts
    that it lists for each region.

    Attributes:
        scale, sigma, min_size: arguments of ``skimage.segmentation.felzenszwalb``, which makes the initial segments.
        max_side: largest side in pixels, to which larger images are shrunk first; None shrinks none.
    """

    scale: float = 100.0
    sigma: float = 0.8
    min_size: int = 50
    max_side: int | None = None

    def __post_init__(self):
        _require_positive(self.max_side)

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> Proposals:
        selective_search = import_extra("selectivesearch", type(self).__name__).selective_search
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # skimage warns about local binary patterns of floating-point images
            pixels = shrunk(image, self.max_side)
            _, regions = selective_search(pixels, self.scale, self.sigma, self.min_size)
        # Its widths and heights are differences of the outermost pixels' indices, and so one pixel short.
        corners = np.array([region["rect"] for region in regions], np.float64)
        boxes = np.concatenate([corners[:, :2], corners[:, :2] + corners[:, 2:] + 1], 1)
        levels = _levels([region["labels"] for region in regions])
        return _in_source(boxes, levels, pixels, image)


@REGION_GENERATORS.register_module()
@dataclass(frozen=True)
class OpenCVSelectiveSearch:
    """Selective search of OpenCV's contributed modules.

    Boxes are in OpenCV's order, which is randomised as by the ranking ``"uijlings"`` of
    :class:`densessl.regions.select.TopK`. OpenCV does not return levels, so all are 1.

    Attributes:
        mode: ``"fast"`` or ``"quality"``.
        resize: (width, height) that images are resized to first; (128, 128) in DETReg.
        max_side: instead of ``resize``, the largest side in pixels, to which larger images are shrunk.
    """

    mode: Literal["fast", "quality"] = "fast"
    resize: tuple[int, int] | None = None
    max_side: int | None = None

    def __post_init__(self):
        if self.mode not in ("fast", "quality"):
            raise SettingError(f"OpenCVSelectiveSearch.mode is {self.mode!r}, expected 'fast' or 'quality'")
        if self.resize is not None and self.max_side is not None:
            raise SettingError("OpenCVSelectiveSearch has resize and max_side, expected one of them")
        _require_positive(self.max_side)

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> Proposals:
        cv2 = _opencv()
        pixels = shrunk(image, self.max_side) if self.resize is None else cv2.resize(image, tuple(self.resize))
        search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
        search.setBaseImage(np.ascontiguousarray(pixels[..., ::-1]))
        if self.mode == "fast":
            search.switchToSelectiveSearchFast()
        else:
            search.switchToSelectiveSearchQuality()
        # OpenCV draws its order from rand() of the C library, which cv2.setRNGSeed() does not seed.
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
            "installed beside them: build the store in a separate environment; reading it needs no OpenCV"
        )
    cv2.setNumThreads(1)
    return cv2


def _require_positive(max_side: int | None) -> None:
    if max_side is not None and max_side < 1:
        raise SettingError(f"max_side is {max_side}, expected a positive number, or None")


def shrunk(image: np.ndarray, max_side: int | None) -> np.ndarray:
    """Shrink an image, with antialiasing, until its longest side is at most ``max_side`` pixels."""
    height, width = image.shape[:2]
    if max_side is None or max(width, height) <= max_side:
        return image
    size = [max(1, round(side * max_side / max(width, height))) for side in (width, height)]
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize(size, Image.Resampling.BILINEAR))


def _in_source(boxes: np.ndarray, levels: np.ndarray, pixels: np.ndarray, image: np.ndarray) -> Proposals:
    """Remove duplicate boxes, and scale the rest from ``pixels`` to ``image``."""
    _, first = np.unique(boxes, axis=0, return_index=True)
    first.sort()
    # Multiply before dividing, so that a box that ends at the border of one image ends exactly at that of the other.
    return Proposals(boxes[first] * (image.shape[1::-1] * 2) / (pixels.shape[1::-1] * 2), levels[first])


def _levels(labels: list[list]) -> np.ndarray:
    """Levels of regions, each given as the list of its initial segments, in the order of creation.

    A merge lists the segments of one part and then those of the other, so its parts are the latest regions that begin
    and end with the same segments.
    """
    begins, ends, levels = {}, {}, []
    for parts in labels:
        level = 1 if len(parts) == 1 else 1 + max(begins[parts[0]], ends[parts[-1]])
        begins[parts[0]] = ends[parts[-1]] = level
        levels.append(level)
    return np.array(levels, np.int64)
