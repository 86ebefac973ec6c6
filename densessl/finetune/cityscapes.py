"""Prepare Cityscapes for MMDetection and MMSegmentation, without cityscapesscripts.

The stock configs read files that the archives lack: instances in COCO's format, and label maps of the 19 training
classes. Both are made here from the id maps in ``gtFine``, with the names of files and classes that the stock configs
expect.
"""

import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from densessl.data.sources import DataNotFound
from densessl.errors import SettingError
from densessl.files import written_whole

# The classes whose instances are evaluated, by id; caravans (29) and trailers (30) are not.
INSTANCES = {
    24: "person",
    25: "rider",
    26: "car",
    27: "truck",
    28: "bus",
    31: "train",
    32: "motorcycle",
    33: "bicycle",
}
# Ids of the training classes of semantic segmentation, in the order of their training ids; others are ignored.
TRAINED = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
IGNORED = 255

IMAGE, INSTANCE_MAP, LABEL_MAP, TRAIN_MAP = (
    f"_{name}.png" for name in ("leftImg8bit", "gtFine_instanceIds", "gtFine_labelIds", "gtFine_labelTrainIds")
)
LAYOUT = "leftImg8bit/{split}/{city}/*_leftImg8bit.png and gtFine/{split}/{city}/*_gtFine_{instanceIds,labelIds}.png"


class Made(NamedTuple):
    """The json of a split's instances, and the numbers of images, instances and crowds in it."""

    file: Path
    images: int
    instances: int
    crowds: int


def prepare_cityscapes(root: str | Path, splits: Sequence[str] = ("train", "val"), workers: int = 1) -> list[Made]:
    """Write ``annotations/instancesonly_filtered_gtFine_{split}.json``, and the missing ``*_labelTrainIds.png`` beside
    each ``*_labelIds.png``.

    Args:
        root: Folder with ``leftImg8bit`` and ``gtFine``.
        splits: Subfolders of those to prepare.
        workers: Number of processes.

    Raises:
        DataNotFound: A split has no images, or maps are missing; the message lists them. Nothing was written.
        SettingError: A map does not hold ids.
    """
    root = Path(root)
    names = {split: _images(root, split) for split in splits}
    made = []
    with ProcessPoolExecutor(workers) as pool:
        for split, images in names.items():
            chunk = max(1, min(32, len(images) // workers))
            converted = list(pool.map(partial(_convert, root / "gtFine" / split), images, chunksize=chunk))
            content = to_coco(images, converted)
            file = root / "annotations" / f"instancesonly_filtered_gtFine_{split}.json"
            with written_whole(file) as temporary:
                temporary.write_text(json.dumps(content))
            crowds = sum(annotation["iscrowd"] for annotation in content["annotations"])
            made.append(Made(file, len(images), len(content["annotations"]) - crowds, crowds))
    return made


def instances_of(ids: np.ndarray) -> list[dict[str, Any]]:
    """Return annotations in COCO's format, without their own and their image's id, from a map (H, W) of instance ids.

    The id of an instance is 1000 times its class id plus a number. A group of inseparable objects has the class id
    itself, and is a crowd.

    Raises:
        SettingError: the array is no map of integers of more than 8 bits, which instance ids need.
    """
    from pycocotools import mask  # of the det extra

    if ids.ndim != 2 or ids.dtype.kind not in "iu" or ids.itemsize < 2:
        raise SettingError(f"found an array {ids.shape} of {ids.dtype}, expected (H, W) of 16-bit instance ids")
    columns = np.asfortranarray(ids)  # run lengths go down columns: transpose once, not for each instance
    annotations = []
    for value in np.flatnonzero(np.bincount(ids.ravel())).tolist():
        category = value // 1000 if value >= 1000 else value
        if category in INSTANCES:
            runs = mask.encode((columns == value).view(np.uint8))
            annotations.append(
                dict(
                    category_id=category,
                    iscrowd=int(value < 1000),
                    area=int(mask.area(runs)),
                    bbox=mask.toBbox(runs).tolist(),
                    segmentation=dict(size=list(ids.shape), counts=runs["counts"].decode()),
                )
            )
    return annotations


def train_ids(ids: np.ndarray) -> np.ndarray:
    """Convert a map (H, W) of class ids, 0 to 255, to training ids, uint8: 0 to 18, and 255 for ignored classes."""
    table = np.full(256, IGNORED, np.uint8)
    table[list(TRAINED)] = np.arange(len(TRAINED))
    return table[ids]


def to_coco(images: Sequence[str], converted: Sequence[tuple[tuple[int, int], list[dict[str, Any]]]]) -> dict[str, Any]:
    """Return the content of a json in COCO's format.

    Args:
        images: ``city/name`` of each image, without suffix.
        converted: height and width in pixels of each image, and its annotations from :func:`instances_of`.
    """
    entries = [
        dict(id=i, file_name=name + IMAGE, height=height, width=width)
        for i, (name, ((height, width), _)) in enumerate(zip(images, converted, strict=True))
    ]
    # Annotation ids start at 1: pycocotools reads id 0 as "no match".
    pairs = [(i, annotation) for i, (_, annotations) in enumerate(converted) for annotation in annotations]
    return dict(
        images=entries,
        annotations=[dict(id=number, image_id=i, **annotation) for number, (i, annotation) in enumerate(pairs, 1)],
        categories=[dict(id=number, name=name) for number, name in INSTANCES.items()],
    )


def _images(root: Path, split: str) -> list[str]:
    """Return ``city/name`` of every image of a split, after checking that all their maps exist."""
    folder, maps = root / "leftImg8bit" / split, root / "gtFine" / split
    files = sorted(path.relative_to(folder).as_posix() for path in folder.glob(f"*/*{IMAGE}"))
    if not files:
        raise DataNotFound(f"{folder} has no images of Cityscapes; expected in {root}: {LAYOUT}")
    names = [name.removesuffix(IMAGE) for name in files]
    missing = [
        name + kind for name in names for kind in (INSTANCE_MAP, LABEL_MAP) if not (maps / (name + kind)).is_file()
    ]
    if missing:
        raise DataNotFound(
            f"{maps} lacks {len(missing)} maps, which gtFine_trainvaltest.zip has: {', '.join(missing[:3])} …; "
            f"expected in {root}: {LAYOUT}"
        )
    return names


def _convert(maps: Path, name: str) -> tuple[tuple[int, int], list[dict[str, Any]]]:
    """Return the size and the instances of one image, and write its map of training ids if it is missing."""
    target = maps / (name + TRAIN_MAP)
    if not target.exists():
        with Image.open(maps / (name + LABEL_MAP)) as image, written_whole(target) as temporary:
            Image.fromarray(train_ids(np.asarray(image))).save(temporary, format="PNG")
    file = maps / (name + INSTANCE_MAP)
    with Image.open(file) as image:
        ids = np.asarray(image)
    try:
        return ids.shape, instances_of(ids)
    except ValueError as error:
        raise SettingError(f"{file}: {error}") from error
