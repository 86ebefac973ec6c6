"""Read files of regions made elsewhere: COCO json, npz, and the proposal pickles of MMDetection and Detectron2.

A reader takes the path of the file and the :class:`Images` of the data set, if given. It returns, for each image name
in the file, a function that returns the image's regions.
"""

import functools
import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np

from densessl.data.decode import open_image
from densessl.data.sources import ImageList, list_images
from densessl.errors import FileMissing, SettingError
from densessl.regions.file_digest import UNKNOWN, digest_of_file
from densessl.weights.io.array_pickles import Held, load_arrays

_PACKED = {"paths", "boxes", "offsets"}
_PACKED_TOO = {"sizes", "levels", "scores"}


class Found(NamedTuple):
    """The regions of an image as read from a file.

    Attributes:
        boxes: (B, 4) x0, y0, x1, y1 in pixels.
        scores: (B,); None if the boxes are ordered already, best first.
        levels: (B,); None if the file has no levels.
        size: (width, height) of the image in pixels; None if the file does not have it.
    """

    boxes: np.ndarray
    scores: np.ndarray | None = None
    levels: np.ndarray | None = None
    size: tuple[int, int] | None = None


Entries = dict[str, Callable[[], Found]]


class Images:
    """The images of a data set, with their sizes and the ids that files refer to them by.

    Args:
        source: a folder, a list file or a COCO json, as for training.
        content: parsed content of the json, if it was read already.

    Attributes:
        root: folder of the images; "" for a json, whose images are not looked for until a size needs them.
        paths: paths relative to the root, in order. A path that is listed twice counts once, unless a json gives its
            entries different ids.
        stated: sizes (width, height) in the json, by path.

    Raises:
        SettingError: a json gives one file two ids, or two sizes.
    """

    def __init__(self, source: str | os.PathLike, content: Any = None):
        self.source = Path(source)
        self.root = ""
        self.stated: dict[str, tuple[int, int]] = {}
        if self.source.suffix.lower() == ".json":
            images = list_of(content or read_json(self.source), "images", self.source, ("file_name", "id"))
            by_path: dict[str, dict] = {}
            for image in images:
                first = by_path.setdefault(image["file_name"], image)
                for key in ("id", "width", "height"):
                    if first.get(key) != image.get(key):
                        raise SettingError(
                            f"{self.source} has the image {image['file_name']!r} twice, with {key} {first.get(key)!r} "
                            f"and {image.get(key)!r}. Expected each image once"
                        )
            self.paths: Sequence[str] = list(by_path)
            self._ids: dict[str, list[str]] | None = _grouped((str(each["id"]), path) for path, each in by_path.items())
            self.stated = {
                path: (int(image["width"]), int(image["height"]))
                for path, image in by_path.items()
                if image.get("width") and image.get("height")
            }
        else:
            self.root, self.paths = self._listed.root, list(dict.fromkeys(self._listed.paths))
            self._ids = None

    @functools.cached_property
    def _listed(self) -> ImageList:
        return list_images(self.source)

    def size(self, path: str) -> tuple[int, int]:
        """(width, height) of an image from the json, or else from its file. Raises UnreadableImage."""
        return self.stated.get(path) or open_image(os.path.join(self._listed.root, path)).source_size

    def digest(self, path: str) -> int:
        """Digest of an image's file (:mod:`densessl.regions.file_digest`); 0 if there is no such file."""
        return UNKNOWN if self._folder is None else digest_of_file(os.path.join(self._folder, path))

    @functools.cached_property
    def _folder(self) -> str | None:
        """Folder of the images; None if there is none, as beside a json alone."""
        try:
            return self._listed.root
        except FileMissing:
            return None

    def with_id(self, number: Any) -> str:
        """The path of the image with an id: in a json by ``id``, otherwise by its file name without extension.

        Raises:
            SettingError: there is no such image, or there are several.
        """
        if self._ids is None:
            self._ids = _grouped((Path(path).stem, path) for path in self.paths)
        meant = self._ids.get(str(number), [])
        if not meant:
            raise SettingError(
                f"{self.source} has no image with the id {number!r}. Give the COCO json that the regions were made with"
            )
        if len(meant) > 1:
            one_of = f"{meant[0]!r} and {meant[1]!r}" + f" and {len(meant) - 2:,} more" * (len(meant) > 2)
            raise SettingError(
                f"{self.source} has {len(meant)} images with the id {number!r}: {one_of}. Give the COCO json that the "
                "regions were made with, in which each image has an id of its own"
            )
        return meant[0]

    def in_order(self) -> Sequence[str]:
        """The paths, for a file whose entries follow their order.

        Raises:
            SettingError: a path is listed twice.
        """
        listed = self.paths if self.root == "" else self._listed.paths
        return list(once(listed, f"{self.source} lists the image"))


def read_coco(place: Path, images: Images | None) -> Entries:
    """Read a json of annotations (``images`` and ``annotations``, without crowds) or a list of results."""
    content = read_json(place)
    if isinstance(content, list):
        _needs(images, place, "a list of results", "the COCO json with the images that its ids mean")
        named, found = images, list_of({"results": content}, "results", place, ("image_id", "bbox"))
    else:
        named = Images(place, content)
        found = list_of(content, "annotations", place, ("image_id", "bbox"))
    by_path: dict[str, list[dict]] = {path: [] for path in ([] if named is images else named.paths)}
    for one in found:
        if not one.get("iscrowd"):
            by_path.setdefault(named.with_id(one["image_id"]), []).append(one)

    def read(path: str) -> Found:
        rows = by_path[path]
        boxes = np.array([row["bbox"] for row in rows], np.float64).reshape(len(rows), 4)
        boxes[:, 2:] += boxes[:, :2]
        scored = rows and all("score" in row for row in rows)
        scores = np.array([row["score"] for row in rows], np.float64) if scored else None
        return Found(boxes, scores, size=named.size(path) if images is None else named.stated.get(path))

    return {path: functools.partial(read, path) for path in by_path}


def read_npz(place: Path, images: Images | None) -> Entries:
    """Read an npz file of one of two layouts.

    Either it has an array for each image under its relative path: (B, 4), or (B, 5) with scores. Or it has ``paths``
    (N,), ``boxes`` (sum of B, 4) and ``offsets`` (N + 1,), and optionally ``sizes`` (N, 2), ``levels`` and ``scores``
    (sum of B,).
    """
    try:
        arrays = np.load(place, allow_pickle=False)
    except (ValueError, EOFError, BadZipFile) as error:  # numpy takes a file that is not a zip file for a pickle
        raise SettingError(f"{place} is not a readable npz file") from error
    if not isinstance(arrays, np.lib.npyio.NpzFile):
        raise SettingError(f"{place} holds one array, expected an npz file with an array for each image")
    once(arrays.files, f"{place} has the array")
    if not set(arrays.files) >= _PACKED:
        return {name: lambda name=name: _with_scores(arrays[name], f"{place}: {name}") for name in arrays.files}
    if unknown := set(arrays.files) - _PACKED - _PACKED_TOO:
        raise SettingError(
            f"{place} has arrays {sorted(unknown)}, expected {sorted(_PACKED)} and {sorted(_PACKED_TOO)}"
        )
    packed = {name: arrays[name] for name in arrays.files}
    offsets, count = packed["offsets"], len(packed["boxes"])
    if (
        offsets.shape != (len(packed["paths"]) + 1,)
        or offsets[0] != 0
        or offsets[-1] != count
        or (np.diff(offsets) < 0).any()
    ):
        raise SettingError(f"{place}: offsets have to rise from 0 to {count}, one more than there are paths")
    for name, length in (("levels", count), ("scores", count), ("sizes", len(packed["paths"]))):
        if len(packed.get(name, range(length))) != length:
            raise SettingError(f"{place}: {len(packed[name])} {name}, expected {length}")

    def read(number: int) -> Found:
        part = slice(*offsets[number : number + 2])
        boxes, scores, levels = (
            packed[name][part] if name in packed else None for name in ("boxes", "scores", "levels")
        )
        size = tuple(map(int, packed["sizes"][number])) if "sizes" in packed else None
        return Found(boxes, scores, levels, size)

    paths = once(map(str, packed["paths"]), f"{place} has regions of")
    return {path: functools.partial(read, number) for number, path in enumerate(paths)}


def read_pickle(place: Path, images: Images | None) -> Entries:
    """Read a pickle of proposals, without executing code.

    It may be of Detectron2 (a dict with ``ids`` and ``boxes``), of MMDetection 3 (``DumpProposals`` writes a dict of
    ``InstanceData`` by the last two parts of the image's path) or of MMDetection 2 (a list of arrays in the images'
    order).
    """
    content = load_arrays(place)
    if isinstance(content, dict) and "boxes" in content:
        return _detectron2(content, place, images)
    if isinstance(content, dict):
        return {name: lambda name=name: _mmdet(content[name], f"{place}: {name}") for name in content}
    if not isinstance(content, list):
        raise SettingError(
            f"{place} holds a {type(content).__name__}, expected the dict or list of proposals of a detector"
        )
    _needs(images, place, "a list of proposals", "the list or COCO json of its images, in the order of the list")
    paths = images.in_order()
    if len(content) != len(paths):
        raise SettingError(f"{place} has proposals of {len(content)} images, {images.source} has {len(paths)}")
    return {path: lambda one=one, path=path: _mmdet(one, f"{place}: {path}") for path, one in zip(paths, content)}


def _detectron2(content: dict, place: Path, images: Images | None) -> Entries:
    ids = content.get("ids", content.get("indexes"))
    scores = content.get("objectness_logits", content.get("scores"))
    mode = int(content.get("bbox_mode", 0))  # detectron2.structures.BoxMode
    if ids is None or len(ids) != len(content["boxes"]) or len(ids) != len(ids if scores is None else scores):
        raise SettingError(f"{place}: expected as many ids and objectness_logits as boxes, found {sorted(content)}")
    if mode not in (0, 1):
        raise SettingError(f"{place}: bbox_mode is {mode}, expected 0 (XYXY_ABS) or 1 (XYWH_ABS)")
    _needs(images, place, "Detectron2's proposals", "the COCO json with the images that its ids mean")

    def read(number: int) -> Found:
        boxes = np.array(content["boxes"][number], np.float64).reshape(-1, 4)
        if mode == 1:
            boxes[:, 2:] += boxes[:, :2]
        return Found(boxes, None if scores is None else np.asarray(scores[number]))

    once(map(str, ids), f"{place} has the image id")
    return {images.with_id(one): functools.partial(read, number) for number, one in enumerate(ids)}


def _mmdet(one: Any, where: str) -> Found:
    """Read the boxes of one image from an array, or from an object or dict with ``bboxes`` and ``scores``."""
    fields = vars(one) if isinstance(one, Held) else one
    if not isinstance(fields, dict):
        return _with_scores(one, where)
    if "bboxes" not in fields:
        raise SettingError(f"{where}: expected bboxes and scores, found {sorted(map(str, fields))}")
    scores = fields.get("scores")
    return _with_scores(fields["bboxes"], where)._replace(scores=None if scores is None else np.asarray(scores))


def _with_scores(array: Any, where: str) -> Found:
    """Read boxes from an array (B, 4), or (B, 5) whose last column is the score."""
    boxes = np.asarray(array)
    if boxes.size == 0:
        return Found(np.zeros((0, 4)))
    if boxes.ndim != 2 or boxes.shape[1] not in (4, 5) or boxes.dtype.kind not in "iuf":
        raise SettingError(
            f"{where}: boxes of shape {boxes.shape} and type {boxes.dtype}, expected (B, 4) or (B, 5) numbers"
        )
    return Found(boxes[:, :4], boxes[:, 4] if boxes.shape[1] == 5 else None)


def _needs(images: Images | None, place: Path, what: str, wanted: str) -> None:
    if images is None:
        raise SettingError(f"{place} is {what}: give --data, {wanted}")


def once(names: Iterable[str], what: str) -> dict[str, None]:
    """The names, in order, as the keys of a dict. Raises SettingError if one appears twice, saying ``what`` has it."""
    seen: dict[str, None] = {}
    for name in names:
        if name in seen:
            raise SettingError(f"{what} {name!r} twice. Expected each once")
        seen[name] = None
    return seen


def _grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for key, value in pairs:
        grouped.setdefault(key, []).append(value)
    return grouped


def read_json(place: Path) -> Any:
    """The content of a JSON file. Raises FileMissing and SettingError."""
    if not place.is_file():
        raise FileMissing(f"{place} is a folder, expected a JSON file" if place.is_dir() else f"there is no {place}")
    try:
        return json.loads(place.read_bytes())
    except ValueError as error:
        raise SettingError(f"{place} is not JSON: {error}") from error


def list_of(content: Any, name: str, place: Path, keys: Iterable[str]) -> list[dict]:
    """The list of dicts under ``name``, after checking that each has ``keys``. Raises SettingError."""
    found = content.get(name) if isinstance(content, dict) else None
    if not isinstance(found, list):
        raise SettingError(f"{place} is not in COCO format: expected a list under {name!r}")
    for number, one in enumerate(found):
        for key in keys:
            if not isinstance(one, dict) or key not in one:
                raise SettingError(f"{place}: {name}[{number}] has no {key!r}")
    return found
