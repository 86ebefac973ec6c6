"""Labels of a data set as columns, whatever format they were read from."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from densessl.errors import SettingError

ABSENT = -math.inf
# An image that cannot be read stays in the data set, so that the run counts it; its size is needed all the same.
UNREADABLE, STAND_IN = "sizes assumed, because the images cannot be read", 640


class Photo(NamedTuple):
    """An image of a data set.

    Attributes:
        name: file name relative to the folder of images; in Pascal VOC's format, the name in the list.
        width, height: size in pixels; 0 if the file does not say.
        id: its id in the file, or the name if there is none.
    """

    name: str
    width: int
    height: int
    id: Any


class Objects(NamedTuple):
    """N objects of a data set, as columns.

    Attributes:
        photo: (N,) index of the image of each object.
        category: (N,) index of its category; -1 if the file does not define it.
        corners: (N, 4) box as x0, y0, x1, y1 in pixels, counted from 0. All four are :data:`ABSENT` where the file has
            none; broken numbers are NaN.
        ignore: (N,) True for crowds and objects marked difficult: neither right nor wrong to detect.
        area: (N,) in pixels; NaN where the file has none.
        masks: COCO's segmentation of each object, as in the file; None where there is none.
    """

    photo: np.ndarray
    category: np.ndarray
    corners: np.ndarray
    ignore: np.ndarray
    area: np.ndarray
    masks: list[Any]

    def at(self, keep: np.ndarray) -> "Objects":
        """Return the objects at the places where ``keep``, (N,), is True."""
        columns = (column[keep] for column in self[:5])
        return Objects(*columns, [self.masks[i] for i in np.flatnonzero(keep)])


@dataclass(frozen=True)
class Labels:
    """The labels of a data set.

    Attributes:
        source: file or folder that was read.
        names: categories, in the order of the file.
        photos: images, in the order of the file.
        objects: objects of all images, in the order of the file.
        origin: coordinate that the file gives to the left and upper edge of an image: 1 in Pascal VOC's format.
        whole: whether coordinates count as whole numbers, as in MMDetection's reader of Pascal VOC.
        areas: whether the format has areas.
        mended, left_out: what reading had to mend, and the objects that it could not keep, counted by reason.
        first: first image with each reason.
    """

    source: Path
    names: list[str]
    photos: list[Photo]
    objects: Objects
    origin: int = 0
    whole: bool = False
    areas: bool = True
    mended: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)


class Notes:
    """Counts of what was mended and left out, with the first image of each reason."""

    def __init__(self) -> None:
        self.mended: Counter[str] = Counter()
        self.left_out: Counter[str] = Counter()
        self.first: dict[str, str] = {}

    def mend(self, reason: str, where: str = "", count: int = 1) -> None:
        self._add(self.mended, reason, where, count)

    def leave(self, reason: str, where: str = "", count: int = 1) -> None:
        self._add(self.left_out, reason, where, count)

    def _add(self, counter: Counter[str], reason: str, where: str, count: int) -> None:
        if count:
            counter[reason] += count
            if where:
                self.first.setdefault(reason, where)


class Rows:
    """Objects that are collected one by one."""

    def __init__(self) -> None:
        self.photo: list[int] = []
        self.category: list[int] = []
        self.corners: list[Sequence[float]] = []
        self.ignore: list[bool] = []
        self.area: list[float] = []
        self.masks: list[Any] = []

    def add(self, photo: int, category: int, corners: Sequence[float], ignore: bool, area: float, mask: Any) -> None:
        self.photo.append(photo)
        self.category.append(category)
        self.corners.append(corners)
        self.ignore.append(ignore)
        self.area.append(area)
        self.masks.append(mask)

    def objects(self) -> Objects:
        return Objects(
            np.array(self.photo, np.int64),
            np.array(self.category, np.int64),
            np.array(self.corners, np.float64).reshape(-1, 4),
            np.array(self.ignore, bool),
            np.array(self.area, np.float64),
            self.masks,
        )


def text_of(path: Path) -> str:
    """Return the text of a file in UTF-8, with or without a byte order mark.

    Raises:
        SettingError: it is in another encoding.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise SettingError(f"{path} is not text in UTF-8: {error}") from error


def refuse_twice(source: Path, what: str, values: Iterable[Any]) -> None:
    """Raise SettingError if a value that must be unique occurs twice; the message names the first three of them."""
    counts = Counter(values)
    twice = [value for value, count in counts.items() if count > 1]
    if twice:
        more = f" and {len(twice) - 3} more" if len(twice) > 3 else ""
        raise SettingError(
            f"{source}: {what} {', '.join(map(repr, twice[:3]))}{more} occurs {counts[twice[0]]} times; expected once"
        )


def refuse_outside(source: Path, names: Iterable[str]) -> None:
    """Raise SettingError if the name of an image leads outside the folder of images."""
    for name in names:
        path = PurePosixPath(name.replace("\\", "/"))
        depth = 0
        for part in path.parts:
            depth += -1 if part == ".." else part != "."
            if depth < 0 or path.is_absolute() or name[1:3] == ":\\":
                raise SettingError(
                    f"{source}: the image {name!r} is not in the folder of images; expected a path relative to it"
                )
