"""The data set of whole images with regions to detect."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from densessl.augment import Photometric
from densessl.data import placed as P
from densessl.data.batch import Sample, SampleRegions
from densessl.data.dataset import ImageList
from densessl.data.decode import open_image
from densessl.data.placed import Placed
from densessl.data.rng import keyed_rng
from densessl.data.whole import WholeSpec, cut_whole, draw_whole
from densessl.geometry import ViewGeometry, boxes_to_view
from densessl.registry import DATASETS, REGIONS


@DATASETS.register_module()
class RegionImages(ImageList):
    """Whole images, the regions that are left in them, and what each region shows as a patch of its own: one view.

    Patches are cut from the image as it is in the file, before it is flipped, resized or cropped: a patch shows all of
    its region even where the view does not (DETReg's and UP-DETR's codes).

    Args:
        source, root, resample, seed, limit: as of :class:`densessl.data.dataset.UnlabelledImages`.
        view: arguments of :class:`densessl.data.whole.WholeSpec`.
        regions: config of a source of regions.
        patch: side of a patch in pixels; None makes none.
        photometric: configs of ops of :mod:`densessl.augment` that the preprocessor applies to patches, drawn here.
        at_least: regions that an image must have, before and after it is cut. One with fewer is replaced by another,
            drawn from (seed, epoch, index): the same in every run.
        tries: of replacement.
        min_side: pixels that both sides of a region must have in the view, at least.
    """

    def __init__(
        self,
        source: str,
        regions: dict,
        view: Mapping | WholeSpec | None = None,
        patch: int | None = 128,
        photometric: Sequence[dict] = (),
        at_least: int = 2,
        tries: int = 100,
        min_side: float = 1.0,
        **kwargs,
    ):
        super().__init__(source, **kwargs)
        self.spec = view if isinstance(view, WholeSpec) else WholeSpec(**(view or {}))
        self.regions = REGIONS.build(regions)
        self.patch = patch
        self.photometric = Photometric(photometric)
        self.at_least, self.tries, self.min_side = at_least, tries, min_side

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        """The sample of key (epoch, index), or of the first image in its place that has regions enough; ``Sample.key``
        tells which.

        Raises:
            densessl.data.decode.UnreadableImage: naming the file.
            ValueError: none of ``tries`` images has.
        """
        epoch, index = key
        others = keyed_rng(self.seed, "replace", epoch, index)
        found = index
        for _ in range(self.tries):
            sample = self._sample(epoch, found)
            if sample is not None:
                return sample._replace(draws=[{"replaced": np.array([found != index], np.float32)}])
            found = int(others.integers(len(self)))
        raise ValueError(
            f"none of {self.tries} images drawn for {self.path(index)} has {self.at_least} regions (dataset.at_least)"
        )

    def _sample(self, epoch: int, index: int) -> Sample | None:
        handle = open_image(self.path(index))
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
        """Which boxes are at least ``min_side`` wide and high in the view."""
        mapped, _ = boxes_to_view(ViewGeometry.stack([geometry]), torch.from_numpy(boxes)[None])
        sides = (mapped[0, :, 2:] - mapped[0, :, :2]).numpy()
        return np.flatnonzero((sides >= self.min_side).all(1))

    def _regions(
        self, image: Placed, proposed: SampleRegions, rows: np.ndarray, rng: np.random.Generator
    ) -> SampleRegions:
        """Those of the proposed regions, with their patches."""
        draws = {name: value[rows] for name, value in proposed.draws.items()}
        boxes, patches = proposed.boxes[rows], None
        if self.patch:
            numbers = np.stack([self.photometric.draw(rng) for _ in proposed.boxes])
            draws["photometric"] = numbers[rows]
            patches = np.stack([cut_patch(image, box, self.patch, self.resample) for box in boxes])
        return SampleRegions(boxes, proposed.levels[rows], draws, patches)


def cut_patch(image: Placed, box: np.ndarray, side: int, backend: str = "fast") -> np.ndarray:
    """What a box (4,) in pixels of the image shows, (side, side, 3) uint8, whatever its aspect. Its edges are rounded
    half to even, as Pillow's crop does."""
    width, height = image.size
    left, top, right, bottom = (int(value) for value in np.rint(box))
    left, top = min(left, width - 1), min(top, height - 1)
    cut = P.crop(image, left, top, max(1, min(right, width) - left), max(1, min(bottom, height) - top))
    return P.resize(cut, (side, side), "bilinear", backend).image
