"""Images of detectors and segmentors: read as in pretraining, and replaced where they cannot be read."""

from typing import Any, Literal

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine import registry as mmengine

from densessl.data.bad_images import GREY, BadImage, read_or_replace, record
from densessl.data.decode import MEGAPIXELS, Reading, UnreadableImage, open_image
from densessl.data.depth import DepthRange
from densessl.registry import DATASETS, TRANSFORMS
from densessl.wording import choose

FILLING = 114  # grey of images that cannot be read


@TRANSFORMS.register_module()
class ReadImage(BaseTransform):
    """Reads ``img_path`` into ``img``: (h, w, 3) BGR, as ``LoadImageFromFile``, with the reader of pretraining.

    Damage that OpenCV decodes to grey is an error here, and images of more than 8 bits are stretched from their range,
    of which OpenCV keeps the upper eight bits. Adds ``img_shape`` and ``ori_shape``.

    Args:
        to_float32: return float32 instead of uint8.
        unreadable: "raise", or "grey" for a grey image of the size in ``height`` and ``width``: at evaluation nothing
            may stand in for an image, and its objects count as missed.
        record: file that a grey image is listed in (:func:`densessl.data.bad_images.record`).
        max_megapixels: size that an image may declare; a larger one counts as unreadable.
        depth_range: numbers that become black and white in images of more than 8 bits; None: those of each file
            (:mod:`densessl.data.depth`).

    Raises:
        UnreadableImage: the message names the file.
    """

    def __init__(
        self,
        to_float32: bool = False,
        unreadable: Literal["raise", "grey"] = "raise",
        record: str | None = None,
        max_megapixels: float = MEGAPIXELS,
        depth_range: tuple[float, float] | None = None,
    ):
        self.to_float32 = to_float32
        self.unreadable = choose("unreadable", unreadable, ("raise", GREY))
        self.record = record
        self.reading = Reading(max_megapixels, None if depth_range is None else DepthRange(*depth_range))

    def transform(self, results: dict) -> dict:
        try:
            image = open_image(results["img_path"], self.reading).decode().image[..., ::-1]
        except UnreadableImage as error:
            if self.unreadable == "raise" or not (results.get("height") and results.get("width")):
                raise
            image = np.full((results["height"], results["width"], 3), FILLING, np.uint8)
            if self.record is not None:
                record(self.record, [BadImage(error.path, error.reason, 0, int(results.get("sample_idx", -1)))], GREY)
        results["img"] = np.ascontiguousarray(image, np.float32 if self.to_float32 else np.uint8)
        results["img_shape"] = results["ori_shape"] = image.shape[:2]
        return results


@DATASETS.register_module()
class ReplacingDataset:
    """A data set in which an image that cannot be read is replaced by another one with its labels.

    The other one is drawn from (seed, index): it is the same for any number of workers, in every epoch and after
    resuming. Everything else is the wrapped data set's.

    Args:
        dataset: the data set, or its config.
        record: file that bad images are listed in, which BadImagesHook counts.
        seed: of the draws.
    """

    def __init__(self, dataset: Any, record: str, seed: int = 0):
        self.dataset = mmengine.DATASETS.build(dataset) if isinstance(dataset, dict) else dataset
        self.record, self.seed = record, seed
        self._told: set[str] = set()

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        sample, bad = read_or_replace(self.dataset.__getitem__, self.seed, 0, int(index), len(self))
        new = [each for each in bad if each.path not in self._told]
        if new:
            self._told.update(each.path for each in new)
            record(self.record, new)
        return sample

    def __getattr__(self, name: str) -> Any:
        if name == "dataset":  # not there yet, while being unpickled
            raise AttributeError(name)
        return getattr(self.dataset, name)
