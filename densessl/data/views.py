"""Draw the random views of an image, and cut the drawn views out of it.

The two steps are separate. :func:`draw_crop` needs only the size of the image, so crops are known before the file is
decoded, and a drawn view can be replayed.
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
    """How much of an image's regions a crop must show; see :func:`draw_crop_of_regions`.

    Attributes:
        kept: a region counts as shown if more than this share of its area is inside the crop.
        at_least: least number of regions that the crop must show.
        tries: most crops that are drawn.
    """

    kept: Share
    at_least: Count
    tries: Count


@dataclass(frozen=True)
class ViewSpec:
    """One kind of view: an entry of ``views`` in a config.

    Attributes:
        size: side of the square view in pixels, or (width, height).
        scale: range of the crop's size as a share of the image; see ``sampling``.
        ratio: range of the crop's aspect ratio, width over height, drawn log-uniformly.
        hflip, vflip: probability of mirroring left-right and top-bottom.
        rotate: range of the rotation in degrees, counter-clockwise; (0, 0) does not rotate.
        within: area that crops are drawn from: "image", or "centre", the image's largest central square.
        sampling: quantity drawn uniformly from ``scale``: "area", the crop's share of the area, as in torchvision, or
            "side", the square root of that share: for square crops of square images, the share of the side (DenseSiam).
        interpolation: "bilinear" or "bicubic", antialiased.
        photometric: configs of the ops of :mod:`densessl.augment`, in order.
        uniforms: random numbers that an objective needs, as counts by name. Each sample carries that many numbers,
            uniform in [0, 1), in ``batch.draws[view][name]``.
        mask: config of the mask of a masked forward, ``dict(type="blocks", patch_size=16, hidden=118)`` or
            ``type="random"``; see :func:`densessl.data.masks.build_mask`. The indices of the visible cells are in
            ``batch.draws[view]["keep"]``.
        regions: how much of the image's regions the crop must show (CCOP): ``dict(kept=0.6, at_least=1, tries=10)``
            draws up to ten crops until one keeps more than 0.6 of the area of at least one region; see
            :func:`draw_crop_of_regions`.
        repeat: number of views of this kind per image (local crops of multi-crop recipes).
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
            build_mask(self.mask, self.width_height)  # raises SettingError now instead of in a worker

    @property
    def width_height(self) -> tuple[int, int]:
        return (self.size, self.size) if isinstance(self.size, int) else tuple(self.size)


ViewConfig = Annotated[dict, Config(ViewSpec, trial=True)]  # an entry of `views`


def expand_views(views: Sequence[dict | ViewSpec]) -> list[ViewSpec]:
    """The specs of all views of an image: each entry as often as its ``repeat`` says.

    Raises:
        SettingError: a config has an unknown key (the message names the known ones), or ``uniforms`` has the name of
            the photometric ops' or the mask's draws.
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
    """A drawn view: a box in source pixels, and the flips and the rotation in degrees that follow the resize."""

    left: int
    top: int
    width: int
    height: int
    hflip: bool
    vflip: bool
    degrees: float


def draw_crop(rng: np.random.Generator, source_size: tuple[int, int], spec: ViewSpec) -> CropDraw:
    """Draw a random resized crop by the algorithm of torchvision's ``RandomResizedCrop.get_params``.

    Up to ten times, it draws an area and an aspect ratio, and takes the box if it fits into the image. Otherwise it
    takes the largest central box whose aspect ratio is in the range.

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
    """Draw crops until one shows enough of the image's regions, and return the one that :func:`choose_try` chooses.

    Args:
        source_size: (width, height).
        spec: the kind of view; its ``regions`` must be set.
        boxes: (B, 4) in source pixels.
    """
    kept, at_least, tries = (spec.regions[key] for key in ("kept", "at_least", "tries"))
    crops, counts = [], []
    while choose_try(counts, len(boxes), at_least, tries) is None:
        crops.append(draw_crop(rng, source_size, spec))
        counts.append(int((kept_in_crop(boxes, crops[-1]) > kept).sum()))
    return crops[choose_try(counts, len(boxes), at_least, tries)]


def kept_in_crop(boxes: np.ndarray, crop: CropDraw) -> np.ndarray:
    """Share of each box's area that is inside a crop: (B,), of boxes (B, 4) in source pixels."""
    corner, extent = np.array([crop.left, crop.top]), np.array([crop.width, crop.height])
    low, high = np.maximum(boxes[:, :2], corner), np.minimum(boxes[:, 2:], corner + extent)
    return (high - low).clip(min=0).prod(1) / (boxes[:, 2:] - boxes[:, :2]).prod(1)


def choose_try(counts: Sequence[int], regions: int, at_least: int, tries: int) -> int | None:
    """Index of the try that becomes the view, or None if another crop must be drawn.

    The last try is chosen if it keeps ``at_least`` regions, or all regions of an image that has fewer. After ``tries``
    tries, the one that keeps most regions is chosen, the latest of several (CCOP's released code,
    contrastive_boxes.py).

    Args:
        counts: number of regions that each try keeps.
        regions: number of regions of the image.
    """
    if counts and counts[-1] >= min(at_least, regions):
        return len(counts) - 1
    if len(counts) < tries:
        return None
    return max(range(len(counts)), key=lambda number: (counts[number], number))


def decode_denominator(draws: Sequence[CropDraw], specs: Sequence[ViewSpec]) -> int:
    """Largest JPEG reduction of 1, 2, 4 and 8 at which no crop must be enlarged to the size of its view."""
    shrink = min(
        min(draw.width / spec.width_height[0], draw.height / spec.width_height[1]) for draw, spec in zip(draws, specs)
    )
    return max(d for d in (1, 2, 4, 8) if d == 1 or d <= shrink)


def cut_view(image: Placed, draw: CropDraw, spec: ViewSpec, resample: str = "fast") -> Placed:
    """Crop, resize, flip and rotate, in this order.

    The box is given in source pixels. On an image decoded at reduced scale, it is rounded to whole decoded pixels, and
    the returned map describes the rounded box.
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
