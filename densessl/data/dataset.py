"""The data set of unlabelled images."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from densessl.augment import Photometric
from densessl.constraints import Config, Count, Positive, Whole
from densessl.data.bad_images import read_or_replace
from densessl.data.batch import Sample, SampleRegions
from densessl.data.decode import MEGAPIXELS, EncodedImage, Reading, open_image
from densessl.data.depth_of_files import DepthSetting, checked_depth, depth_of_files
from densessl.data.masks import build_mask
from densessl.data.rng import keyed_rng
from densessl.data.sources import list_images
from densessl.data.views import (
    ViewConfig,
    ViewSpec,
    cut_view,
    decode_denominator,
    draw_crop,
    draw_crop_of_regions,
    expand_views,
)
from densessl.errors import SettingError
from densessl.registry import DATASETS, REGIONS
from densessl.wording import choose

Resample = Literal["fast", "pil"]
WANTS_KEYS = "unlabelled images need keys (epoch, index), expected type='KeySampler'"
RegionsConfig = Annotated[dict, Config(REGIONS)]  # dict(type="RegionStore", path="regions/")


def keyed(key: tuple[int, int]) -> tuple[int, int]:
    """Check that a sample's key is (epoch, index), as KeySampler yields it.

    Raises:
        SettingError: the key is a bare index, from a sampler of another type.
    """
    if not isinstance(key, tuple):
        raise SettingError(f"train_dataloader.sampler: {WANTS_KEYS}")
    return key


class ImageDataset(Dataset):
    """Images of folders, archives, lists, or a COCO json whose labels are ignored.

    Args:
        source: a folder, archive, list file, json or image, or a list of several; see
            :func:`densessl.data.sources.list_images`.
        root: folder that relative paths of a list or json are resolved against.
        resample: "fast" or "pil" (bit-exact Pillow, slower); see :func:`densessl.data.placed.resize`.
        seed: seed of all draws; the sampler replaces it by the seed of the run.
        limit: use only the first ``limit`` images.
        bad_images: "raise" ends with the error of an image that cannot be read; "replace" takes another image in its
            place (:func:`densessl.data.bad_images.read_or_replace`) and tells so in ``Batch.bad``, which BadImagesHook
            counts.
        max_megapixels: size that an image may declare; a larger one counts as unreadable.
        depth_range: what becomes black and white in images of more than 8 bits: "auto" estimates one range for the
            data set from some of its images, "stretch" likewise from percentiles, "file" takes each file's own
            (:mod:`densessl.data.depth`), and two numbers are that range.
    """

    metainfo: dict = {}  # MMEngine reads this attribute; unlabelled images have no meta information

    def __init__(
        self,
        source: str | Sequence[str],
        root: str | None = None,
        resample: Resample = "fast",
        seed: Whole = 0,
        limit: Count | None = None,
        bad_images: Literal["raise", "replace"] = "raise",
        max_megapixels: Positive = MEGAPIXELS,
        depth_range: DepthSetting = "auto",
    ):
        self.images = list_images(source, root)
        self.resample = resample
        self.seed = seed
        self.limit = limit
        self.bad_images = choose("dataset.bad_images", bad_images, ("raise", "replace"))
        self.max_megapixels = max_megapixels
        self.depth_range = checked_depth(depth_range)

    @cached_property
    def reading(self) -> Reading:
        """How files are read. Where a range of samples has to be estimated, some images are looked at."""
        reading = Reading(self.max_megapixels)
        return reading._replace(depth=depth_of_files(self.path, len(self), self.depth_range, reading))

    def open(self, index: int) -> EncodedImage:
        """Open image ``index``. Raises UnreadableImage."""
        return open_image(self.path(index), self.reading)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        """Return the sample of key (epoch, index).

        Raises:
            densessl.data.decode.UnreadableImage: with ``bad_images="raise"``; the message names the file.
            DataError: with ``bad_images="replace"``, where image after image cannot be read.
        """
        epoch, index = keyed(key)
        if self.bad_images == "raise":
            return self.sample(epoch, index)
        sample, bad = read_or_replace(lambda place: self.sample(epoch, place), self.seed, epoch, index, len(self))
        return sample._replace(bad=bad)

    def sample(self, epoch: int, index: int) -> Sample:
        """Make the sample of an image. Raises UnreadableImage."""
        raise NotImplementedError

    def set_seed(self, seed: int) -> None:
        self.seed = seed

    def __len__(self) -> int:
        length = len(self.images.paths)
        return length if self.limit is None else min(length, self.limit)

    def path(self, index: int) -> Path:
        """Path of image ``index``."""
        return Path(self.images.root, self.images.paths[index])


@DATASETS.register_module()
class UnlabelledImages(ImageDataset):
    """Views of unlabelled images.

    Args:
        source, **kwargs: see :class:`ImageDataset`.
        views: view configs (:class:`densessl.data.views.ViewSpec`).
        photometric_on: where the photometric ops run. "device": the worker ships plain crops, and the model's
            preprocessor applies the ops to the batch. "worker": the data set applies them in float and ships the result
            rounded to uint8. Both apply the same ops with the same draws.
        scaled_decode: decode JPEGs at reduced scale when every drawn crop has at least twice the view's resolution.
        regions: config of a source of regions (:class:`densessl.regions.RegionSource`), such as
            ``dict(type="RegionStore", path="regions/")``.
    """

    def __init__(
        self,
        source: str | Sequence[str],
        views: Sequence[ViewConfig | ViewSpec],
        photometric_on: Literal["device", "worker"] = "device",
        scaled_decode: bool = True,
        regions: RegionsConfig | None = None,
        **kwargs,
    ):
        super().__init__(source, **kwargs)
        self.specs = expand_views(views)
        self.photometric = [Photometric(spec.photometric) for spec in self.specs]
        self.masks = [spec.mask and build_mask(spec.mask, spec.width_height) for spec in self.specs]
        self.photometric_on = choose("dataset.photometric_on", photometric_on, ("device", "worker"))
        self.scaled_decode = scaled_decode and self.resample == "fast"
        self.regions = None if regions is None else REGIONS.build(regions)
        if self.regions is None and any(spec.regions for spec in self.specs):
            raise SettingError("a view asks for regions (views.regions), but dataset.regions is not set: set it")

    def sample(self, epoch: int, index: int) -> Sample:
        """Draw and cut the views of an image. Raises UnreadableImage."""
        handle = self.open(index)
        regions = self._regions(handle, epoch, index)
        crops = []
        for number, spec in enumerate(self.specs):
            rng = keyed_rng(self.seed, "crop", epoch, index, number)
            if spec.regions is None:
                crops.append(draw_crop(rng, handle.source_size, spec))
            else:
                crops.append(draw_crop_of_regions(rng, handle.source_size, spec, regions.boxes))
        image = handle.decode(decode_denominator(crops, self.specs) if self.scaled_decode else 1)
        cut = [cut_view(image, crop, spec, self.resample) for crop, spec in zip(crops, self.specs)]
        numbers = [
            op.draw(keyed_rng(self.seed, "photometric", epoch, index, number))
            for number, op in enumerate(self.photometric)
        ]
        pixels = [view.image for view in cut]
        draws = [{"photometric": row} for row in numbers]
        if self.photometric_on == "worker":
            pixels = [_apply(op, image, row) for op, image, row in zip(self.photometric, pixels, numbers)]
            draws = [{} for _ in numbers]
        for number, (spec, row) in enumerate(zip(self.specs, draws)):
            for name, count in spec.uniforms.items():
                row[name] = keyed_rng(self.seed, f"uniforms.{name}", epoch, index, number).random(count)
            if self.masks[number]:
                row["keep"] = self.masks[number](keyed_rng(self.seed, "mask", epoch, index, number))
        geometry = [(view.to_source, view.size, view.source_size) for view in cut]
        return Sample(pixels, geometry, draws, (epoch, index), regions)

    def _regions(self, handle: EncodedImage, epoch: int, index: int) -> SampleRegions | None:
        if self.regions is None:
            return None
        return self.regions(self.images.paths[index], handle, self.seed, epoch, index)


def _apply(photometric: Photometric, image: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Apply photometric ops to one (h, w, 3) uint8 image and round the result to uint8."""
    batch = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float() / 255
    batch = photometric(batch, torch.from_numpy(draws)[None])
    return (batch[0] * 255).round().clamp(0, 255).byte().permute(1, 2, 0).contiguous().numpy()
