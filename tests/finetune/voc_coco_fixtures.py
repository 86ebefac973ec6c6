"""Tiny data sets in the layouts of COCO and Pascal VOC, as files: photos of noise with known boxes."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (90, 60)  # width and height in pixels of every photo
COCO_SETS = ("train2017", "val2017")
VOC_SETS = ("trainval", "test")


def box_of(image: int, number: int) -> tuple[int, int, int, int]:
    """(x, y, width, height) in pixels of a box of a photo, both counted from 0: large enough for every filter."""
    return 5 + image % 4 + 2 * (number % 3), 4, 40 + 5 * (number % 3), 46


def write_coco(
    root: Path,
    names: Sequence[str] = ("fox", "owl"),
    images: int = 4,
    boxes: int = 2,
    sets: Sequence[str] = COCO_SETS,
    crowd: bool = False,
) -> Path:
    """``root/annotations/instances_{set}.json`` and ``root/{set}/*.jpg``. Returns the root.

    Args:
        names: the categories. Their ids are 3, 6, 9 …: neither contiguous nor from 0.
        images: photos of each set. Their ids go on from one set to the next.
        boxes: of each photo, each with a polygon around it. Their names go around ``names``, on from photo to photo.
        sets: of photos, by their folders.
        crowd: whether every photo has one box more, of the first name, that is a crowd.
    """
    (root / "annotations").mkdir(parents=True)
    ids = {name: 3 * i for i, name in enumerate(names, 1)}
    for s, folder in enumerate(sets):
        photos, annotations = [], []
        for image in range(images):
            number = s * images + image
            photos.append(dict(id=100 + number, file_name=f"{100 + number:012d}.jpg", width=SIZE[0], height=SIZE[1]))
            _photo(root / folder / photos[-1]["file_name"], number)
            for k in range(boxes + crowd):
                x, y, width, height = box_of(image, k)
                corners = [x, y, x + width, y, x + width, y + height, x, y + height]
                annotation = dict(
                    id=len(annotations) + 1,
                    image_id=photos[-1]["id"],
                    category_id=ids[names[(image * boxes + k) % len(names)]],
                    bbox=[x, y, width, height],
                    area=width * height,
                    iscrowd=0,
                    segmentation=[corners],
                )
                if k == boxes:
                    runs = dict(size=[SIZE[1], SIZE[0]], counts=[0, SIZE[0] * SIZE[1]])
                    annotation |= dict(iscrowd=1, category_id=ids[names[0]], segmentation=runs)
                annotations.append(annotation)
        categories = [dict(id=number, name=name) for name, number in ids.items()]
        content = dict(images=photos, annotations=annotations, categories=categories)
        (root / "annotations" / f"instances_{folder}.json").write_text(json.dumps(content))
    return root


def write_voc(
    root: Path,
    names: Sequence[str] = ("fox", "owl"),
    images: int = 4,
    years: Sequence[str] = ("VOC2007",),
    sets: Sequence[str] = VOC_SETS,
    difficult: bool = False,
) -> Path:
    """``root/{year}/{Annotations,ImageSets/Main,JPEGImages}``: all photos are in every set. Returns the root.

    Args:
        names: every photo has a box of each.
        images: photos of each year.
        years: folders.
        sets: text files of ``ImageSets/Main``.
        difficult: whether every photo has one box more, of the first name, that is marked so.
    """
    for y, year in enumerate(years):
        for part in ("Annotations", "ImageSets/Main", "JPEGImages"):
            (root / year / part).mkdir(parents=True)
        photos = [f"{year[-4:]}_{i:06d}" for i in range(images)]
        for i, photo in enumerate(photos):
            _photo(root / year / "JPEGImages" / f"{photo}.jpg", y * images + i)
            objects = [(name, 0) for name in names] + [(names[0], 1)] * difficult
            text = "".join(_object(name, hard, box_of(i, k)) for k, (name, hard) in enumerate(objects))
            size = f"<size><width>{SIZE[0]}</width><height>{SIZE[1]}</height><depth>3</depth></size>"
            (root / year / "Annotations" / f"{photo}.xml").write_text(f"<annotation>{size}{text}</annotation>")
        for part in sets:
            (root / year / "ImageSets/Main" / f"{part}.txt").write_text("\n".join(photos) + "\n")
    return root


def _photo(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def _object(name: str, difficult: int, box: tuple[int, int, int, int]) -> str:
    """VOC counts pixels from 1, and a box's last pixel is in it."""
    x, y, width, height = box
    return (
        f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{x + 1}</xmin><ymin>{y + 1}</ymin>"
        f"<xmax>{x + width}</xmax><ymax>{y + height}</ymax></bndbox></object>"
    )
