"""The data set of whole images with regions to detect."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from densessl.augment import Photometric
from densessl.augment.photometric import OpConfig
from densessl.constraints import Count, NonNegative, Whole
from densessl.data import placed as P
from densessl.data.batch import Sample, SampleRegions
from densessl.data.dataset import ImageDataset, RegionsConfig
from densessl.data.placed import Placed
from densessl.data.rng import keyed_rng
from densessl.data.whole import WholeConfig, WholeSpec, cut_whole, draw_whole
from densessl.errors import SettingError
from densessl.geometry import ViewGeometry, boxes_to_view
from densessl.registry import DATASETS, REGIONS

TOUCHES = 1e-6  # pixels: a region whose part inside the view is no wider than this only touches the view


@DATASETS.register_module()
class RegionImages(ImageDataset):
    """Whole images as one view each, with the regions that lie in the view and a patch of pixels for each region.

    Patches are cut from the image in the file, before it is flipped, resized or cropped, so a patch shows the whole of
    its region even where the view does not (released codes of DETReg and UP-DETR).

    Args:
        source, **kwargs: see :class:`densessl.data.dataset.ImageDataset`.
        view: arguments of :class:`densessl.data.whole.WholeSpec`.
        regions: config of a source of regions.
        patch: side of a patch in pixels; None cuts no patches.
        photometric: configs of ops of :mod:`densessl.augment`. They are drawn here, and the preprocessor applies them
            to the patches.
        at_least: regions that an image must have, before and after cropping. An image with fewer is replaced by another
            one drawn from (seed, epoch, index), so every run draws the same.
        tries: most replacements for one image.
        min_side: least width and height of a region in the view, in pixels, exclusive; 0, as in the released codes,
            removes only regions outside the view.

    Raises:
        SettingError: ``view`` has an unknown key, or a value is impossible.
    """

    def __init__(
        self,
        source: str | Sequence[str],
        regions: RegionsConfig,
        view: WholeConfig | WholeSpec | None = None,
        patch: Count | None = 128,
        photometric: Sequence[OpConfig] = (),
        at_least: Whole = 2,
        tries: Count = 100,
        min_side: NonNegative = 0.0,
        **kwargs,
    ):
        super().__init__(source, **kwargs)
        for name, value, least in (("patch", patch, 1), ("at_least", at_least, 0), ("tries", tries, 1)):
            if value is not None and value < least:
                raise SettingError(f"dataset.{name} is {value}, expected at least {least}")
        self.spec = view if isinstance(view, WholeSpec) else WholeSpec.parse(view or {})
        self.regions = REGIONS.build(regions)
        self.patch = patch
        self.photometric = Photometric(photometric)
        self.at_least, self.tries, self.min_side = at_least, tries, min_side

    def sample(self, epoch: int, index: int) -> Sample:
        """Make the sample of an image, or of its replacement if the image has too few regions.

        ``Sample.key`` is the key of the image that was used.

        Raises:
            densessl.data.decode.UnreadableImage: an image cannot be decoded; the message names the file.
            SettingError: ``tries`` images in a row have too few regions.
        """
        others = keyed_rng(self.seed, "replace", epoch, index)
        found = index
        for _ in range(self.tries):
            sample = self._sample(epoch, found)
            if sample is not None:
                return sample._replace(draws=[{"replaced": np.array([found != index], np.float32)}])
            found = int(others.integers(len(self)))
        raise SettingError(
            f"none of {self.tries} images drawn for {self.path(index)} has {self.at_least} regions (dataset.at_least)"
        )

    def _sample(self, epoch: int, index: int) -> Sample | None:
        handle = self.open(index)
        proposed = self.regions(self.images.paths[index], handle, self.seed, epoch, index)
        if len(proposed.boxes) < self.at_least:
            return None
        steps = draw_whole(keyed_rng(self.seed, "whole", epoch, index), handle.source_size, self.spec)
        image = handle.decode()
        view = cut_whole(image, steps, self.spec.interpolation, self.resample)
        geometry = (view.to_source, view.size, view.source_size)
        rows = self._inside(geometry, proposed.boxes)
        if len(rows) < self.at_least:
            return None
        regions = self._regions(image, proposed, rows, keyed_rng(self.seed, "patches", epoch, index))
        return Sample([view.image], [geometry], [{}], (epoch, index), regions)

    def _inside(self, geometry: tuple, boxes: np.ndarray) -> np.ndarray:
        """Indices of the boxes (B, 4) that are wider and higher than ``min_side`` in the view."""
        mapped, _ = boxes_to_view(ViewGeometry.stack([geometry]), torch.from_numpy(boxes)[None])
        sides = (mapped[0, :, 2:] - mapped[0, :, :2]).numpy()
        return np.flatnonzero((sides > max(self.min_side, TOUCHES)).all(1))

    def _regions(
        self, image: Placed, proposed: SampleRegions, rows: np.ndarray, rng: np.random.Generator
    ) -> SampleRegions:
        """The proposed regions in ``rows``, with their patches."""
        draws = {name: value[rows] for name, value in proposed.draws.items()}
        boxes, patches = proposed.boxes[rows], None
        if self.patch:
            # Drawn for all proposed regions, so that a region's numbers do not depend on which others were removed.
            numbers = [self.photometric.draw(rng) for _ in proposed.boxes]
            draws["photometric"] = np.array(numbers, np.float32).reshape(len(numbers), self.photometric.width)[rows]
            patches = cut_patches(image, boxes, self.patch, self.resample)
        return SampleRegions(boxes, proposed.levels[rows], draws, patches)


def cut_patches(image: Placed, boxes: np.ndarray, side: int, backend: str = "fast") -> np.ndarray:
    """Crop each box and resize it to a square, ignoring its aspect ratio.

    Args:
        boxes: (B, 4) in pixels of the image, inside the image. Edges are rounded half to even, as in Pillow's crop;
            boxes thinner than one pixel become one pixel wide.
        side: side of a patch in pixels.
        backend: see :func:`densessl.data.placed.resize`.

    Returns:
        (B, side, side, 3) uint8.
    """
    limit = np.array(image.size)
    low = np.minimum(np.rint(boxes[:, :2]), limit - 1).astype(np.int64)
    high = np.clip(np.rint(boxes[:, 2:]).astype(np.int64), low + 1, limit)
    windows = np.concatenate([low, high - low], 1).tolist()
    patches = np.empty((len(boxes), side, side, 3), np.uint8)
    if backend == "fast":  # the same as resize(), without copying each box and each patch
        pixels = torch.from_numpy(image.image.copy())[None].permute(0, 3, 1, 2)
        for patch, (left, top, width, height) in zip(torch.from_numpy(patches).permute(0, 3, 1, 2), windows):
            window = pixels[..., top : top + height, left : left + width]
            patch.copy_(F.interpolate(window, (side, side), mode="bilinear", align_corners=False, antialias=True)[0])
    else:
        for patch, window in zip(patches, windows):
            patch[:] = P.resize(P.crop(image, *window), (side, side), "bilinear", backend).image
    return patches
