"""Import regions made elsewhere into a store."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from densessl.data.decode import UnreadableImage
from densessl.errors import FileMissing, SettingError
from densessl.regions.file_digest import UNKNOWN
from densessl.regions.import_formats import Found, Images, read_coco, read_npz, read_pickle
from densessl.regions.match import match_paths
from densessl.regions.proposals import Proposals
from densessl.regions.store_format import Packed, pack, write_packed
from densessl.wording import count

FORMATS = {"coco": (".json",), "npz": (".npz",), "pickle": (".pkl", ".pickle")}
_READERS = {"coco": read_coco, "npz": read_npz, "pickle": read_pickle}
_SHOWN = 5


@dataclass
class ImportReport:
    """The outcome of an import; ``str()`` formats it.

    Attributes:
        source: name of the imported file.
        images: number of images in the store.
        boxes: number of boxes in the store.
        clipped: number of boxes that extended beyond their image and were clipped.
        dropped: number of boxes dropped because they were not finite, or empty after clipping.
        beyond: number of boxes left out because their image had more than ``top``.
        unmatched: names in the file that match no image of the data, or several; their boxes are left out.
        without: number of images of the data that the file does not name; they are not in the store.
        unreadable: reasons by path of the images left out because their size was needed and their file is unreadable.
    """

    source: str
    images: int = 0
    boxes: int = 0
    clipped: int = 0
    dropped: int = 0
    beyond: int = 0
    unmatched: list[str] = field(default_factory=list)
    without: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [
            f"{self.source}: {count(self.boxes, 'box', 'boxes')} of {count(self.images, 'image')}",
            f"  {self.clipped:,} clipped to their image, {self.dropped:,} empty ones dropped"
            + (f", {self.beyond:,} beyond the first of an image left out" if self.beyond else ""),
        ]
        if self.without:
            lines.append(f"  {self.without:,} images of the data have no regions here: training on them will stop")
        unreadable = [f"{path} ({reason})" for path, reason in self.unreadable.items()]
        for what, names in (("mean no one image of the data", self.unmatched), ("are unreadable", unreadable)):
            if names:
                more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
                lines.append(f"  {len(names):,} {what}: {', '.join(names[:_SHOWN])}{more}")
        return "\n".join(lines)


def import_regions(
    source: str | os.PathLike,
    out: str | os.PathLike,
    format: str = "auto",
    data: str | os.PathLike | None = None,
    top: int | None = None,
) -> ImportReport:
    """Write the boxes of a file to a store.

    Boxes are ordered by score, best first, or as in the file if it has no scores. They are clipped to their image, and
    dropped if they are empty then. Pickles are read without executing code, see
    :mod:`densessl.weights.io.array_pickles`.

    Args:
        source: a COCO json with annotations or results, an npz, or a pickle of MMDetection's or Detectron2's proposals;
            see :mod:`densessl.regions.import_formats`.
        out: folder of the store.
        format: one of ``FORMATS``, or "auto" to go by the extension.
        data: folder, list file or COCO json of the images. The store then uses the images' paths in ``data``; names in
            ``source`` may begin at a folder above or below. It is required if ``source`` lacks the images' sizes, which
            are then read from the json or the image files, or refers to images by id or by order.
        top: number of boxes to keep per image at most; None keeps all.

    Raises:
        FileMissing: ``source`` is not a file.
        SettingError: the file does not fit its format or lacks something that is needed, or no name in it matches an
            image of ``data``.
        RefusedPickle: reading the pickle would execute code.
        StoreError: ``out`` is a store already.
    """
    place = Path(source)
    if not place.is_file():
        raise FileMissing(f"{place} is a folder, expected a file" if place.is_dir() else f"there is no file {place}")
    read = _READERS[_format(place, format)]
    if top is not None and top < 1:
        raise SettingError(f"top is {top}, expected a positive number, or None for all")
    images = None if data is None else Images(data)
    entries = read(place, images)
    report = ImportReport(place.name)
    if images is None:
        paths = dict(zip(entries, entries))
    else:
        paths = match_paths(entries, images.paths, images.root)
        report.unmatched = [name for name in entries if name not in paths]
        report.without = len(images.paths) - len(paths)
        if entries and not paths:
            raise SettingError(
                f"no name in {place} means an image of {images.source}: it has {next(iter(entries))!r}, the data has "
                f"{images.paths[0]!r}"
            )

    def fitted() -> Iterator[tuple[str, Packed]]:
        for name, path in paths.items():
            found = entries[name]()
            if found.size is None and images is None:
                raise SettingError(
                    f"{place} does not say the sizes of its images: give --data, their folder or COCO json"
                )
            try:
                size = found.size or images.size(path)
            except UnreadableImage as error:
                report.unreadable[path] = str(error).removeprefix(f"{error.path}: ")
                continue
            proposals = _fit(found, size, top, f"{place}: {name}", report)
            report.images += 1
            report.boxes += len(proposals.boxes)
            yield path, pack(path, size, [proposals], UNKNOWN if images is None else images.digest(path))

    write_packed(out, fitted(), dict(imported=place.name, top=top, unreadable=report.unreadable))
    return report


def _format(place: Path, format: str) -> str:
    if format in FORMATS:
        return format
    by_extension = {extension: name for name, extensions in FORMATS.items() for extension in extensions}
    if format != "auto":
        raise SettingError(f"format is {format!r}, expected one of {['auto', *FORMATS]}")
    if place.suffix.lower() not in by_extension:
        raise SettingError(
            f"{place}: expected {', '.join(by_extension)}; or say which it is: --format {'|'.join(FORMATS)}"
        )
    return by_extension[place.suffix.lower()]


def _fit(found: Found, size: tuple[int, int], top: int | None, where: str, report: ImportReport) -> Proposals:
    """Order and clip an image's boxes, drop empty ones, and keep the first ``top``; count the changes in ``report``."""
    boxes = np.asarray(found.boxes, np.float64)
    count = len(boxes)
    levels = np.ones(count, np.int64) if found.levels is None else np.asarray(found.levels, np.int64)
    if found.scores is not None:
        if len(found.scores) != count:
            raise SettingError(f"{where}: {len(found.scores)} scores for {count} boxes")
        order = np.argsort(-np.asarray(found.scores, np.float64), kind="stable")
        boxes, levels = boxes[order], levels[order]
    inside = boxes.clip(0, np.array(size * 2))
    good = np.isfinite(boxes).all(1) & (inside[:, :2] < inside[:, 2:]).all(1)
    report.dropped += count - int(good.sum())
    report.beyond += max(0, int(good.sum()) - (count if top is None else top))
    kept = np.flatnonzero(good)[:top]
    report.clipped += int((boxes[kept] != inside[kept]).any(1).sum())
    return Proposals(inside[kept], levels[kept])
