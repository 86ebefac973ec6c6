"""Write cleaned labels as COCO's json or as Pascal VOC's XML files, the same bytes each time."""

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from typing import Any

import numpy as np

from densessl.finetune.labels.cleaning import DIGITS
from densessl.finetune.labels.table import Labels, Objects, Photo


def coco_bytes(labels: Labels, first_image: int = 1) -> bytes:
    """Return cleaned labels as COCO's json.

    Categories have ids from 1 in the order of the classes, annotations from 1 in the order of the file. Images keep
    their ids if these are whole numbers; otherwise, or if ``first_image`` is not 1, they are numbered from there.
    """
    keep = first_image == 1 and all(type(photo.id) is int for photo in labels.photos)
    ids = [photo.id if keep else number for number, photo in enumerate(labels.photos, first_image)]
    objects = labels.objects
    extents = (objects.corners[:, 2:] - objects.corners[:, :2]).round(DIGITS)
    boxes = np.concatenate([objects.corners[:, :2], extents], 1).tolist()
    columns = zip(
        objects.photo.tolist(), objects.category.tolist(), boxes, objects.area.tolist(), objects.ignore.tolist()
    )
    annotations: list[dict[str, Any]] = [
        dict(id=number, image_id=ids[photo], category_id=category + 1, bbox=box, area=area, iscrowd=int(ignore))
        for number, (photo, category, box, area, ignore) in enumerate(columns, 1)
    ]
    for annotation, mask in zip(annotations, objects.masks):
        if mask is not None:
            annotation["segmentation"] = mask
    content = dict(
        images=[
            dict(id=number, file_name=photo.name, width=photo.width, height=photo.height)
            for number, photo in zip(ids, labels.photos)
        ],
        annotations=annotations,
        categories=[dict(id=number, name=name) for number, name in enumerate(labels.names, 1)],
    )
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()


def voc_files(labels: Labels) -> Iterator[tuple[str, bytes]]:
    """Yield the name of each image and its XML file. Corners are whole numbers, counted from 1."""
    objects = labels.objects
    ends = np.searchsorted(
        objects.photo[order := np.argsort(objects.photo, kind="stable")], range(len(labels.photos) + 1)
    )
    for number, photo in enumerate(labels.photos):
        rows = order[ends[number] : ends[number + 1]]
        yield photo.name, _xml(photo, objects, rows, labels.names)


def _xml(photo: Photo, objects: Objects, rows: np.ndarray, names: list[str]) -> bytes:
    root = ElementTree.Element("annotation")
    ElementTree.SubElement(root, "filename").text = photo.name
    size = ElementTree.SubElement(root, "size")
    for tag, value in (("width", photo.width), ("height", photo.height), ("depth", 3)):
        ElementTree.SubElement(size, tag).text = str(value)
    for row in rows:
        entry = ElementTree.SubElement(root, "object")
        ElementTree.SubElement(entry, "name").text = names[objects.category[row]]
        ElementTree.SubElement(entry, "difficult").text = str(int(objects.ignore[row]))
        box = ElementTree.SubElement(entry, "bndbox")
        for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), objects.corners[row]):
            ElementTree.SubElement(box, tag).text = str(int(value) + 1)
    return ElementTree.tostring(root, encoding="utf-8")
