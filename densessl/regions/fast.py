"""Selective search in numba: segments, grouped by similarity into a hierarchy of regions.

It starts from the segments of Felzenszwalb & Huttenlocher (IJCV 2004), and merges the two most similar neighbours
(Uijlings et al., IJCV 2013) until one region is left. Several strategies, which differ in colour space, scale of the
segments and similarity, find regions that a single one misses.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from densessl.errors import SettingError
from densessl.extras import import_extra
from densessl.regions.generators import shrunk
from densessl.regions.proposals import Proposals
from densessl.registry import REGION_GENERATORS

PARTS = "CTSF"  # of a similarity: colour, texture, size, fill


def _kernels() -> tuple[ModuleType, ...]:
    """Import the modules that numba compiles. Numba is optional, so they are not imported at the top of this module."""
    names = ("colour", "felzenszwalb", "grouping")
    return tuple(import_extra(f"densessl.regions.{name}", "FastSelectiveSearch") for name in names)


@REGION_GENERATORS.register_module()
@dataclass(frozen=True)
class FastSelectiveSearch:
    """Selective search with all combinations of the given strategies (by default one, the paper's single strategy).

    Boxes are ordered from coarse to fine: the last merge of each strategy, then the last but one of each, and so on,
    with the segments at the end. Exact duplicates are dropped. Near duplicates come after all other boxes, in the same
    order, so that the first boxes differ. A box that is found several times has the lowest of its levels, by which
    ``TopK(ranking="uijlings")`` reorders. No random numbers are drawn.

    Attributes:
        colours: colour spaces of :data:`densessl.regions.colour.SPACES`: rgb, grey, rgi, hsv, lab.
        scales: k of the segmentation, in grey levels of the smoothed image; a larger k gives fewer, larger segments.
        similarities: similarities for the grouping, each given by the letters of its equally weighted terms: C colour,
            T texture, S size, F fill.
        sigma: sigma of the Gaussian that smooths the image before segmentation, in pixels of the shrunk image.
        min_size: least size of a segment, in pixels of the shrunk image.
        max_side: largest side in pixels, to which larger images are shrunk; None shrinks none. Time grows with its
            square; small objects need a large value.
        near: IoU with an earlier box above which a box comes after all others; 1 keeps them in place.
    """

    colours: Sequence[str] = ("hsv",)
    scales: Sequence[float] = (100.0,)
    similarities: Sequence[str] = ("CTSF",)
    sigma: float = 0.8
    min_size: int = 50
    max_side: int | None = 384
    near: float = 0.8

    def __post_init__(self):
        name = type(self).__name__
        for key in ("colours", "scales", "similarities"):
            values = getattr(self, key)
            if not isinstance(values, (list, tuple)) or not values:
                raise SettingError(f"{name}.{key} is {values!r}, expected a list of one or more")
        spaces = sorted(_kernels()[0].SPACES)
        for value in self.colours:
            if value not in spaces:
                raise SettingError(f"{name}.colours has {value!r}, expected some of {spaces}")
        for value in self.similarities:
            if not value or set(value) - set(PARTS) or len(set(value)) < len(value):
                raise SettingError(f"{name}.similarities has {value!r}, expected each letter of {PARTS!r} at most once")
        if min(self.scales) < 0:
            raise SettingError(f"{name}.scales is {self.scales!r}, expected none below 0")
        if self.sigma < 0 or self.min_size < 1 or not 0 < self.near <= 1:
            raise SettingError(
                f"{name} has sigma={self.sigma}, min_size={self.min_size}, near={self.near}, expected sigma >= 0, "
                "min_size >= 1 and 0 < near <= 1"
            )
        if self.max_side is not None and self.max_side < 1:
            raise SettingError(f"{name}.max_side is {self.max_side}, expected a positive number, or None")

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> Proposals:
        """Proposals of one image.

        Args:
            image: (h, w, 3) uint8 RGB.
            rng: not used.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            found = f"{image.shape} of {image.dtype}"
            raise ValueError(f"{type(self).__name__} got an image {found}, expected (h, w, 3) of uint8, not empty")
        height, width = image.shape[:2]
        # Contiguous and writable, as numba would compile again for other arrays.
        image = np.require(shrunk(image, self.max_side), requirements=["C", "W"])
        groupings = list(self.groupings(image))
        places = np.concatenate([np.arange(len(levels))[::-1] for _, levels in groupings])
        boxes, levels = (np.concatenate(parts)[np.argsort(places, kind="stable")] for parts in zip(*groupings))
        _, first, same = np.unique(boxes, axis=0, return_index=True, return_inverse=True)
        lowest = np.full(len(first), levels.max())
        np.minimum.at(lowest, same.reshape(-1), levels)
        order = np.argsort(first)
        boxes, levels = boxes[first[order]], lowest[order]
        order = _kernels()[2].novel_first(boxes, float(self.near))
        # Multiply before dividing, so that boxes at the far border end exactly there.
        sides = np.array([width, height] * 2)
        return Proposals(boxes[order] * sides / np.array([image.shape[1], image.shape[0]] * 2), levels[order])

    def groupings(self, image: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield, for each strategy, the boxes (2n - 1, 4) and levels (2n - 1,) of its n segments and then its merges.

        Args:
            image: (h, w, 3) uint8, contiguous, at the size to segment.
        """
        colour, segment, grouping = _kernels()
        weights = np.array([[float(part in parts) for part in PARTS] for parts in self.similarities])
        for space in self.colours:
            planes = colour.SPACES[space](image)
            smooth = segment.smooth(planes, segment.half_gaussian(self.sigma))
            edges = segment.sort_edges(smooth)
            colours, textures = grouping.colour_codes(planes), grouping.texture_codes(smooth)
            for scale in self.scales:
                labels = segment.join_edges(*edges, *image.shape[:2], float(scale), self.min_size)
                outline = grouping.outline(labels)
                colour_counts = grouping.describe(labels, colours, len(planes) * grouping.COLOUR_BINS)
                texture_counts = grouping.describe(labels, textures, grouping.TEXTURE_BINS * textures.shape[2])
                for row in weights:
                    yield grouping.group(*outline, colour_counts, texture_counts, row)[:2]


@REGION_GENERATORS.register_module()
@dataclass(frozen=True)
class DiverseSelectiveSearch(FastSelectiveSearch):
    """Selective search with eight strategies, for a thousand boxes per image.

    As in the paper's fast mode, it combines two colour spaces, two scales and two similarities. The paper's scales, 50
    and 100, give more and smaller regions, of which the first thousand cover fewer objects.
    """

    colours: Sequence[str] = ("hsv", "lab")
    scales: Sequence[float] = (100.0, 300.0)
    similarities: Sequence[str] = ("CTSF", "TSF")
    max_side: int | None = 500
