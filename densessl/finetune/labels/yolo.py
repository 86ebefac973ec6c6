"""Read YOLO's label files, in the folders of Ultralytics or Roboflow.

``images/train/a.jpg`` has its objects in ``labels/train/a.txt``, one a line: the number of the class, and a box
(centre, width, height) or the corners of a polygon, relative to the size of the image. ``data.yaml`` or ``classes.txt``
names the classes. An image without a label file has no objects.
"""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from densessl.data.sources import EXTENSIONS
from densessl.errors import DensesslError, FileMissing, SettingError
from densessl.finetune.labels.sizes import size_of
from densessl.finetune.labels.table import STAND_IN, UNREADABLE, Labels, Notes, Photo, Rows, text_of

PARTS = {"train": ("train",), "val": ("val", "valid", "validation", "test")}
LAYOUT = "images/{train,val} and labels/{train,val} with data.yaml or classes.txt, or {train,valid}/{images,labels}"
BOX = 5  # words in the line of a box
RELATIVE = 1.5  # no relative coordinate exceeds it, even of a careless box


class YoloSet(NamedTuple):
    """A data set in YOLO's layout: its folder, the content of its ``data.yaml``, and the names of its classes."""

    root: Path
    content: Mapping[str, Any]
    names: list[str]


def open_yolo(root: Path) -> YoloSet:
    """Find the classes of a data set.

    Raises:
        FileMissing: there is no such folder.
        SettingError: nothing names the classes.
    """
    if not root.is_dir():
        raise FileMissing(f"--yolo-root: there is no folder {root}")
    for file in sorted([*root.glob("*.yaml"), *root.glob("*.yml")], key=lambda path: (path.stem != "data", path.name)):
        try:
            content = yaml.safe_load(text_of(file))
        except yaml.YAMLError as error:
            raise SettingError(f"{file} is not YAML: {error}") from error
        names = content.get("names") if isinstance(content, Mapping) else None
        if names:
            return YoloSet(root, content, _names(file, names))
    for file in (root / "classes.txt", root / "labels/classes.txt", root / "labels/train/classes.txt"):
        if file.is_file():
            lines = text_of(file).splitlines()
            return YoloSet(root, {}, [line.strip() for line in lines if line.strip()])
    raise SettingError(f"{root} has neither a data.yaml with names nor a classes.txt; expected {LAYOUT}")


def _names(file: Path, names: Any) -> list[str]:
    """Return the names of the classes, given as a list or by their numbers."""
    if isinstance(names, Mapping):
        numbered = {str(number): name for number, name in names.items()}
        if set(numbered) != {str(number) for number in range(len(names))}:
            raise SettingError(f"{file}: names has the numbers {', '.join(numbered)}, expected 0 to {len(names) - 1}")
        names = [numbered[str(number)] for number in range(len(names))]
    if not isinstance(names, list) or not all(isinstance(name, str | int | float) for name in names):
        raise SettingError(f"{file}: names is {names!r}, expected a list of names, or a name by each number")
    return [str(name).strip() for name in names]


def read_yolo(data: YoloSet, part: str) -> Labels:
    """Read the labels of the ``"train"`` or ``"val"`` part; images are named relative to ``data.root``.

    Raises:
        FileMissing: the part has no images.
        SettingError: two images share a label file, coordinates are in pixels, or an image is outside of the root.
    """
    images = _images(data, part)
    notes, rows, photos = Notes(), Rows(), []
    owners: dict[Path, Path] = {}
    beyond, boxes = 0, 0
    for image in images:
        file = label_file(image)
        if owners.setdefault(file, image) is not image:
            raise SettingError(f"{owners[file]} and {image} have the same label file {file}; expected one image each")
        if not image.is_relative_to(data.root):
            raise SettingError(f"{image} is not in {data.root}; give --yolo-root a folder that has all images")
        name = image.relative_to(data.root).as_posix()
        try:
            width, height = size_of(image)
        except DensesslError:
            notes.mend(UNREADABLE, name)
            width, height = STAND_IN, STAND_IN
        photos.append(Photo(name, width, height, name))
        for words in _lines(file):
            try:
                category, *numbers = map(float, words)
            except ValueError:
                notes.leave("lines that are not numbers", name)
                continue
            numbers = numbers[:4] if "kpt_shape" in data.content else numbers
            polygon = len(numbers) >= 6 and not len(numbers) % 2
            if len(numbers) != BOX - 1 and not polygon:
                notes.leave("lines that are neither box nor polygon", name)
                continue
            boxes += 1
            beyond += max(map(abs, numbers)) > RELATIVE
            known = category.is_integer() and 0 <= category < len(data.names)
            rows.add(len(photos) - 1, int(category) if known else -1, *_geometry(numbers, polygon, width, height))
    if beyond * 2 > boxes:
        raise SettingError(
            f"{data.root}: {beyond} of {boxes} objects have coordinates above {RELATIVE}; "
            "expected them relative to the size of the image, 0 to 1"
        )
    folders = {file.parent for file in owners}
    for orphan in (path for folder in sorted(folders) for path in sorted(folder.glob("*.txt"))):
        if orphan not in owners and orphan.name != "classes.txt":
            notes.leave("label files without an image", orphan.name)
    return Labels(
        data.root,
        data.names,
        photos,
        rows.objects(),
        areas=False,
        mended=notes.mended,
        left_out=notes.left_out,
        first=notes.first,
    )


def label_file(image: Path) -> Path:
    """Return the label file of an image: ``labels`` in place of the last folder ``images``."""
    parts = list(image.parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == "images":
            parts[place] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _geometry(
    numbers: Sequence[float], polygon: bool, width: int, height: int
) -> tuple[tuple[float, float, float, float], bool, float, Any]:
    """Return corners in pixels, that the object is not ignored, an unknown area, and the mask."""
    if polygon:
        points = [number * (height if i % 2 else width) for i, number in enumerate(numbers)]
        xs, ys = points[::2], points[1::2]
        return (min(xs), min(ys), max(xs), max(ys)), False, math.nan, [points]
    x, y, w, h = numbers
    corners = ((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height)
    return corners, False, math.nan, None


def _lines(file: Path) -> Iterator[list[str]]:
    if file.is_file():
        for line in text_of(file).splitlines():
            if words := line.split():
                yield words


def _images(data: YoloSet, part: str) -> list[Path]:
    """Return the images of a part, in the order of their paths."""
    places = [place for name in PARTS[part] for place in _places(data, name)]
    for place in places:
        if all(path.exists() for path in place):
            images = sorted({image for path in place for image in _listed(path)})
            if images:
                return images
    tried = ", ".join(dict.fromkeys(str(path) for place in places for path in place))
    raise FileMissing(f"{data.root} has no images for {part}: looked in {tried}; expected {LAYOUT}")


def _places(data: YoloSet, name: str) -> Iterator[list[Path]]:
    """Yield the folders or lists that a part may be in: as ``data.yaml`` says, and in the usual layouts."""
    given = data.content.get(name)
    if given:
        given = [given] if isinstance(given, str) else given
        if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
            raise SettingError(
                f"{data.root}: {name} in its YAML file is {given!r}, expected a folder or a list of them"
            )
        for base in (data.root / str(data.content.get("path") or ""), data.root):
            yield [Path(os.path.normpath(base / each)) for each in given]
        # Roboflow writes ../train/images where ./train/images is meant.
        yield [data.root / each.removeprefix("../") for each in given]
    yield [data.root / "images" / name]
    yield [data.root / name / "images"]


def _listed(path: Path) -> Iterator[Path]:
    if path.is_file():  # a list of images
        for line in text_of(path).splitlines():
            if line.strip():
                yield Path(os.path.normpath(path.parent / line.strip()))
        return
    for folder, _, names in os.walk(path, followlinks=True):
        yield from (Path(folder, name) for name in names if name.lower().endswith(EXTENSIONS) and name[0] != ".")
