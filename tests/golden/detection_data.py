"""Adaptors: images, boxes and patches of DETReg (commit a4b6363) and UP-DETR (commit 44c0c6e)."""

import random
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image

from densessl.data.batch import Batch, collate_views
from densessl.data.detection import RegionImages
from densessl.data.whole import Crop, Flip, Resize, WholeSpec, by_short_side, draw_whole
from densessl.detectors.samples import data_samples
from densessl.preprocessor import RegionPreprocessor
from densessl.regions import Proposals, RegionSource
from densessl.regions.generators import OpenCVSelectiveSearch, RandomPatches
from densessl.regions.select import TopK
from densessl.registry import REGIONS
from tests.golden.case import Case

TOLERANCE = dict(rtol=1e-5, atol=1e-5)
STILL = dict(hflip=0.0, crop=0.0)


class OfficialDraws:
    """The generators that the official codes draw from, seeded, behind the methods of numpy's that ours call."""

    def __init__(self, seed: int):
        self.python = random.Random(seed)
        self.torch = torch.Generator().manual_seed(seed)
        self.calls = 0

    def random(self) -> float:
        """For the flip, then for the choice whether to crop, where a number below a half is theirs not to."""
        self.calls += 1
        number = self.python.random()
        return number if self.calls == 1 else 1 - number

    def choice(self, values: list[int]) -> int:
        return self.python.choice(values)

    def integers(self, low: int, high: int | None = None, endpoint: bool = True) -> int:
        """A crop's sides come from Python, its place from torch."""
        if high is not None:
            return self.python.randint(low, high)
        return torch.randint(0, low + 1, (1,), generator=self.torch).item()


class OfficialPatches:
    """The same of UP-DETR's boxes, and of images that are resized only."""

    def __init__(self, seed: int):
        self.boxes, self.choice = np.random.RandomState(seed), random.Random(seed).choice

    def random(self) -> float:
        return 0.5

    def integers(self, low: int, high: int | None = None, endpoint: bool = False) -> int:
        return self.boxes.randint(low) if high is None else self.boxes.randint(low, high + endpoint)


@REGIONS.register_module(force=True)
class GivenBoxes(RegionSource):
    """The same for every image, numbered by their levels."""

    def __init__(self, boxes: np.ndarray, **kwargs):
        super().__init__(**kwargs)
        self.boxes = Proposals(boxes, np.arange(len(boxes)))

    def propose(self, path, image, rng, epoch):
        return self.boxes


def loaded(image: np.ndarray, regions: dict, view: dict | WholeSpec, draws=OfficialDraws, seed: int = 0) -> Batch:
    """What the model gets of an image, with Pillow's pixels and the draws of an official generator."""
    with tempfile.TemporaryDirectory() as folder:
        Image.fromarray(image).save(Path(folder, "image.png"))
        data = RegionImages(folder, regions, view, at_least=0, resample="pil")
        with (
            mock.patch("densessl.data.detection.keyed_rng", lambda *key: draws(seed)),
            mock.patch("densessl.regions.source.keyed_rng", lambda *key: draws(seed)),
        ):
            return RegionPreprocessor()(collate_views([data[0, 0]]))


def centred(batch: Batch) -> torch.Tensor:
    """Boxes (M, 4) as (cx, cy, w, h) in units of the view."""
    boxes = batch.regions.boxes[0] / batch.geometry[0].view_size.repeat(1, 2)
    return torch.cat([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], 1)


def labels(batch: Batch) -> torch.Tensor:
    """Of the regions of one image, as theirs: 1 for class 0 of MMDetection."""
    return data_samples(batch)[0].gt_instances.labels + 1


def compare(case: Case, prefix: str, batch: Batch) -> None:
    """Boxes, sizes and pixels."""
    case.value(f"{prefix}boxes", centred(batch), **TOLERANCE)
    case.exact(f"{prefix}size", batch.geometry[0].view_size[0].flip(0))
    case.exact(f"{prefix}img_shape", torch.tensor(batch.views[0].shape[1:]))
    case.value(f"{prefix}img_sub", batch.views[0][0, :, ::16, ::16], **TOLERANCE)


def detreg_transforms(case: Case) -> None:
    """What is drawn from their generators, and what becomes of image and boxes.

    Areas are compared after a crop, where theirs are right; before, they take a box's far corner for its sides, and
    nothing reads them.
    """
    image, boxes = case["image"].numpy(), case["boxes"].double().numpy()
    seeds = case["seeds"].tolist()
    named = all(f"s{seed}/ops" in case for seed in seeds)
    for position, seed in enumerate(seeds):
        prefix = f"s{seed if named else position}/"
        steps = draw_whole(OfficialDraws(seed), image.shape[1::-1], WholeSpec())
        case.exact(f"{prefix}ops", torch.tensor(rows(steps, case[f"{prefix}ops"].tolist(), image.shape[1::-1])))
        batch = loaded(image, dict(type="GivenBoxes", boxes=boxes), {}, seed=seed)
        compare(case, prefix, batch)
        case.exact(f"{prefix}kept", batch.regions.levels)
        case.exact(f"{prefix}labels", labels(batch))
        if any(isinstance(step, Crop) for step in steps):
            mapped = batch.regions.boxes[0]
            case.value(f"{prefix}area", (mapped[:, 2:] - mapped[:, :2]).prod(1), rtol=1e-5, atol=1e-2)
        case.informative(f"{prefix}area")


def rows(steps: list, like: list[list[int]], size: tuple[int, int]) -> list[list[int]]:
    """Our steps as the file has them. It also tells the short side asked for, and the limit of the other one (-1:
    none), which are of interest only for the size that they lead to, ours."""
    found = []
    for position, step in enumerate(steps):
        _, short, longest, *_ = like[position]
        if isinstance(step, Flip):
            found.append([1, 0, 0, 0, 0])
        elif isinstance(step, Crop):
            found.append([3, step.top, step.left, step.height, step.width])
            size = step.width, step.height
        else:
            assert Resize(*by_short_side(size, short, None if longest < 0 else longest)) == step
            found.append([2, short, longest, step.height, step.width])
            size = step
    return found


def detreg_topk(case: Case) -> None:
    """OpenCV's boxes from its answer on, then an item without random transformations. Areas are left out, see above."""
    image, raw = case["image"].numpy(), case["raw_boxes_xywh_128"].numpy()
    case.value("boxes_xyxy_all", searched(raw, image, (128, 128)), **TOLERANCE)
    case.value("boxes_xyxy_nores", searched(raw, image, None), **TOLERANCE)
    top = dict(type="TopK", k=case["max_prop"].item())
    regions = dict(type="GivenBoxes", boxes=searched(raw, image, (128, 128)), select=[top])
    batch = loaded(image, regions, dict(short=(480,), longest=600, **STILL))
    compare(case, "item_", batch)
    case.exact("item_labels", labels(batch))
    case.exact("item_orig_size", batch.geometry[0].source_size[0].flip(0))
    patches = batch.regions.patches
    case.value("item_patches_sub", patches[:, :, ::8, ::8], **TOLERANCE)
    case.value("item_patches_mean", patches.mean((2, 3)), **TOLERANCE)
    case.value("item_patches_std", patches.std((2, 3)), **TOLERANCE)
    case.informative("item_area")


def searched(raw: np.ndarray, image: np.ndarray, resize: tuple[int, int] | None) -> np.ndarray:
    """Boxes (B, 4) that our generator makes of OpenCV's answer ``raw`` (B, 4) as x, y, w, h."""
    cv2 = mock.MagicMock()
    cv2.resize = lambda pixels, size: np.zeros((*size[::-1], 3), np.uint8)
    cv2.ximgproc.segmentation.createSelectiveSearchSegmentation().process.return_value = raw
    with mock.patch("densessl.regions.generators._opencv", lambda: cv2):
        return OpenCVSelectiveSearch(resize=resize)(image, np.random.default_rng(0)).boxes


def detreg_opencv_ss(case: Case) -> None:
    """Two calls on one image give the same boxes in another order, inside the image and on the 128 by 128 grid, and so
    do two rankings of ours on them."""
    height, width = case["image"].shape[:2]
    case.informative("resized128")  # what OpenCV's search sees, by its own resizing
    first, second = case["boxes_call1"].double().numpy(), case["boxes_call2"].double().numpy()
    ours = [
        TopK(ranking="uijlings")(Proposals.plain(first), (width, height), np.random.default_rng(seed)).boxes
        for seed in range(2)
    ]
    for boxes in (second, *ours):
        assert {tuple(box) for box in boxes} == {tuple(box) for box in first} and len(boxes) == len(first)
        assert len(boxes) < 3 or not np.array_equal(boxes, first)
    grid = first * 128 / [width, height, width, height]
    np.testing.assert_allclose(grid, grid.round(), atol=1e-3)
    assert (grid >= -1e-3).all() and (grid <= 128 + 1e-3).all() and (grid[:, 2:] > grid[:, :2]).all()


def updetr_item(case: Case) -> None:
    """Boxes from NumPy's seeds, the same numbers in the same order; an item with images and patches by Pillow."""
    for number, (width, height) in enumerate(case["sizes_wh"].tolist()):
        wanted = case[f"xywh_{number}"]
        generator = RandomPatches(count=wanted.shape[1])
        for seed, boxes in zip(case["seeds"].tolist(), wanted):
            found = generator(np.empty((height, width, 3), np.uint8), OfficialPatches(seed)).boxes
            assert [[x, y, x1 - x, y1 - y] for x, y, x1, y1 in found.tolist()] == boxes.tolist()
    batch = loaded(
        case["image"].numpy(),
        dict(type="GeneratedRegions", generator=dict(type="RandomPatches", count=case["item_boxes"].shape[0])),
        dict(STILL),
        OfficialPatches,
        case["item_seed"].item(),
    )
    compare(case, "item_", batch)
    case.exact("item_labels", labels(batch))
    case.exact("item_orig_size", batch.geometry[0].source_size[0].flip(0))
    case.value("item_patches_sub", batch.regions.patches[:, :, ::8, ::8], **TOLERANCE)
    mapped = batch.regions.boxes[0]
    case.value("item_area", (mapped[:, 2:] - mapped[:, :2]).prod(1), rtol=1e-5, atol=1e-2)
