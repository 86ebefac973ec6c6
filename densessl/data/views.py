"""Views of an image: what is drawn, and how the drawn views are cut out.

Drawing and doing are apart: :func:`draw_crop` needs the size of the image only, so crops are known before the file
is decoded, and what was done can be replayed.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal, NamedTuple, TypedDict

import numpy as np

from densessl.augment.photometric import OpConfig
from densessl.constraints import Ascending, Config, Count, Positive, Share
from densessl.data import placed as P
from densessl.data.masks import MaskConfig, build_mask
from densessl.data.placed import Placed
from densessl.errors import SettingError
from densessl.wording import choose


class ShownRegions(TypedDict):
    """What a crop has to show of an image's regions, see :func:`draw_crop_of_regions`.

    Attributes:
        kept: share of its area that a region has to keep to count, exclusive.
        at_least: regions that have to count.
        tries: crops drawn at most.
    """

    kept: Share
    at_least: Count
    tries: Count


@dataclass(frozen=True)
class ViewSpec:
    """One kind of view, as written in a config.

    Attributes:
        size: side of the square view in pixels, or (width, height).
        scale: range of the crop's size, see ``sampling``; 1 is all there is.
        ratio: range of its aspect ratio, drawn log-uniformly.
        hflip, vflip: probability of mirroring left-right, and upside down.
        rotate: range of the angle in degrees, counter-clockwise; (0, 0) turns nothing.
        within: what crops are drawn in: "image", or "centre", its largest central square.
        sampling: what is uniform in ``scale``: "area", the crop's share of the area, as in torchvision, or "side", that
            share's root, for a square the share of its side (DenseSiam).
        interpolation: "bilinear" or "bicubic", antialiased.
        photometric: configs of the ops of :mod:`densessl.augment`, in order.
        uniforms: further random numbers of the view that an objective asks for, counts by name: each sample carries so
            many, uniform in [0, 1), in ``batch.draws[view][name]``.
        mask: which patches a masked forward does not see: ``dict(type="blocks", patch_size=16, hidden=118)``, or
            "random"; see :func:`densessl.data.masks.build_mask`. The others are in ``batch.draws[view]["keep"]``.
        regions: what a crop has to show of the image's regions (CCOP): ``dict(kept=0.6, at_least=1, tries=10)`` draws
            up to ten crops until one keeps more than 0.6 of the area of at least one region; see
            :func:`draw_crop_of_regions`.
        repeat: how many views of this kind an image gives (local crops of multi-crop recipes).
    """

    size: Count | tuple[Count, Count] = 224
    scale: Annotated[tuple[Share, Share], Ascending()] = (0.08, 1.0)
    ratio: Annotated[tuple[Positive, Positive], Ascending()] = (3 / 4, 4 / 3)
    hflip: Share = 0.5
    vflip: Share = 0.0
    rotate: Annotated[tuple[float, float], Ascending()] = (0.0, 0.0)
    within: Literal["image", "centre"] = "image"
    sampling: Literal["area", "side"] = "area"
    interpolation: P.Interpolation = "bilinear"
    photometric: Sequence[OpConfig] = field(default_factory=tuple)
    uniforms: Mapping[str, Count] = field(default_factory=dict)
    mask: MaskConfig | None = None
    regions: ShownRegions | None = None
    repeat: Count = 1

    def __post_init__(self):
        for key, known in (("within", ("image", "centre")), ("sampling", ("area", "side"))):
            choose(f"views: {key}", getattr(self, key), known)
        if self.regions is not None and set(self.regions) != {"kept", "at_least", "tries"}:
            raise SettingError(f"views: regions has keys {sorted(self.regions)}, expected kept, at_least and tries")
        if self.mask is not None:
            build_mask(self.mask, self.width_height)  # a wrong one is told here

    @property
    def width_height(self) -> tuple[int, int]:
        return (self.size, self.size) if isinstance(self.size, int) else tuple(self.size)


ViewConfig = Annotated[dict, Config(ViewSpec, trial=True)]  # an entry of `views`


def expand_views(views: Sequence[dict | ViewSpec]) -> list[ViewSpec]:
    """The specs of all views of an image, ``repeat`` written out.

    Raises:
        TypeError: when a config has a key that no view knows; the message names the known ones.
        ValueError: when uniforms are named like the draws of the photometric ops or of the mask.
    """
    known = ViewSpec.__dataclass_fields__
    specs = []
    for number, view in enumerate(views):
        if not isinstance(view, ViewSpec):
            unknown = sorted(set(view) - set(known))
            if unknown:
                raise SettingError(f"views[{number}] has unknown keys {unknown}; known are {sorted(known)}")
            view = ViewSpec(**view)
        for name, owner in (("photometric", "photometric draws"), ("keep", "mask's cells")):
            if name in view.uniforms:
                raise SettingError(f"views[{number}].uniforms has {name!r}, the name of the {owner}: rename it")
        specs.extend([view] * view.repeat)
    return specs


class CropDraw(NamedTuple):
    """A drawn view: a box in source pixels, and what is done to it after resizing."""

    left: int
    top: int
    width: int
    height: int
    hflip: bool
    vflip: bool
    degrees: float


def draw_crop(rng: np.random.Generator, source_size: tuple[int, int], spec: ViewSpec) -> CropDraw:
    """Draw a random resized crop by torchvision's algorithm: ten tries for a box of the drawn area and aspect that
    fits, else the largest central box of admissible aspect (fact sheet of the dense methods, section 0.3).

    Args:
        source_size: (width, height).
    """
    width, height = source_size
    if spec.within == "centre":
        width = height = min(source_size)
    low, high = (math.log(bound) for bound in spec.ratio)
    for _ in range(10):
        share = rng.uniform(*spec.scale)
        area = (share if spec.sampling == "area" else share**2) * width * height
        aspect = math.exp(rng.uniform(low, high))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top, left = int(rng.integers(height - h, endpoint=True)), int(rng.integers(width - w, endpoint=True))
            break
    else:
        aspect = min(max(width / height, spec.ratio[0]), spec.ratio[1])
        w = max(1, min(width, round(height * aspect)))
        h = max(1, min(height, round(width / aspect)))
        top, left = (height - h) // 2, (width - w) // 2
    flips = rng.random(2) < (spec.hflip, spec.vflip)
    degrees = rng.uniform(*spec.rotate) if spec.rotate[0] != spec.rotate[1] else spec.rotate[0]
    left, top = left + (source_size[0] - width) // 2, top + (source_size[1] - height) // 2
    return CropDraw(left, top, w, h, bool(flips[0]), bool(flips[1]), float(degrees))


def draw_crop_of_regions(
    rng: np.random.Generator, source_size: tuple[int, int], spec: ViewSpec, boxes: np.ndarray
) -> CropDraw:
    """Draw crops until one shows enough of the image's regions, and return the one that :func:`choose_try` takes.

    Args:
        source_size: (width, height).
        spec: with its ``regions``.
        boxes: (B, 4) in source pixels.
    """
    kept, at_least, tries = (spec.regions[key] for key in ("kept", "at_least", "tries"))
    crops, counts = [], []
    while choose_try(counts, len(boxes), at_least, tries) is None:
        crops.append(draw_crop(rng, source_size, spec))
        counts.append(int((kept_in_crop(boxes, crops[-1]) > kept).sum()))
    return crops[choose_try(counts, len(boxes), at_least, tries)]


def kept_in_crop(boxes: np.ndarray, crop: CropDraw) -> np.ndarray:
    """Share of the area of boxes (B, 4) inside a crop, (B,)."""
    corner, extent = np.array([crop.left, crop.top]), np.array([crop.width, crop.height])
    low, high = np.maximum(boxes[:, :2], corner), np.minimum(boxes[:, 2:], corner + extent)
    return (high - low).clip(min=0).prod(1) / (boxes[:, 2:] - boxes[:, :2]).prod(1)


def choose_try(counts: Sequence[int], regions: int, at_least: int, tries: int) -> int | None:
    """Which of the tries so far a view takes, None for none yet.

    The last one if it keeps ``at_least`` regions, or all there are; after ``tries`` of them, the latest of those that
    keep most. (CCOP's released code; fact sheet of the dense methods, section 5.4.)

    Args:
        counts: regions kept by each try.
        regions: of the image.
    """
    if counts and counts[-1] >= min(at_least, regions):
        return len(counts) - 1
    if len(counts) < tries:
        return None
    return max(range(len(counts)), key=lambda number: (counts[number], number))


def decode_denominator(draws: Sequence[CropDraw], specs: Sequence[ViewSpec]) -> int:
    """Largest JPEG reduction 1, 2, 4 or 8 at which no view would have to be enlarged from its crop."""
    shrink = min(
        min(draw.width / spec.width_height[0], draw.height / spec.width_height[1]) for draw, spec in zip(draws, specs)
    )
    return max(d for d in (1, 2, 4, 8) if d == 1 or d <= shrink)


def cut_view(image: Placed, draw: CropDraw, spec: ViewSpec, resample: str = "fast") -> Placed:
    """Crop, resize, flip and turn, in this order.

    The box is given in source pixels; on an image decoded at reduced scale it is rounded to whole decoded pixels, and
    the returned map is that of the rounded box.
    """
    denominator = image.to_source[0, 0]
    if denominator != 1:
        width, height = image.size
        left, right = (min(width, round(x / denominator)) for x in (draw.left, draw.left + draw.width))
        top, bottom = (min(height, round(y / denominator)) for y in (draw.top, draw.top + draw.height))
        box = (left, top, right - left, bottom - top)
    else:
        box = draw[:4]
    view = P.resize(P.crop(image, *box), spec.width_height, spec.interpolation, resample)
    if draw.hflip:
        view = P.hflip(view)
    if draw.vflip:
        view = P.vflip(view)
    return P.rotate(view, draw.degrees) if draw.degrees else view
