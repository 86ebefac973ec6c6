"""Check a store of regions: its checksums, statistics of its boxes, their recall of objects, and a picture."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from densessl.data.decode import UnreadableImage, read_image
from densessl.data.sources import list_images
from densessl.errors import SettingError
from densessl.files import require_picture
from densessl.regions.draw import Shown, draw_regions
from densessl.regions.file_digest import changed_files
from densessl.regions.import_formats import Images, list_of, read_json
from densessl.regions.match import match_paths
from densessl.regions.recall import AT, Recall, RecallTable
from densessl.regions.report import Statistics, format_statistics, statistics
from densessl.regions.store import RegionStore
from densessl.wording import count

SHOWN = 6  # number of images in the picture


@dataclass(frozen=True)
class CheckReport:
    """The results of a check; ``str()`` formats them.

    Attributes:
        store: folder of the store, whose files all agree with their checksums.
        statistics: statistics of the boxes.
        unreadable: reasons by path of the images that have no regions because they could not be read.
        recall: recall of the annotated objects by the store's first draw, in its order; None without annotations.
        annotated: number of annotated images that the store has, and number of annotated images.
        compared: number of images of the data whose files were compared with those that the regions were made of.
        changed: paths of those that differ.
        resized: number of images that have another size in the annotations, which the recall leaves out.
        picture: file of the picture; None if there is none.
    """

    store: str
    statistics: Statistics
    unreadable: dict[str, str]
    recall: RecallTable | None = None
    annotated: tuple[int, int] = (0, 0)
    resized: int = 0
    compared: int | None = None
    changed: Sequence[str] = ()
    picture: Path | None = None

    def __str__(self) -> str:
        unreadable = [f"{path}: {reason}" for path, reason in self.unreadable.items()]
        lines = [f"{self.store}: whole, all checksums agree", "", format_statistics(self.statistics, unreadable)]
        if self.compared is not None:
            lines += ["", self._files()]
        if self.recall is not None:
            lines += ["", f"recall: {self.annotated[0]:,} of {self.annotated[1]:,} annotated images are in the store"]
            if self.resized:
                lines.append(f"{self.resized:,} of them have another size in the annotations and are left out")
            lines.append(str(self.recall))
        if self.picture is not None:
            lines += ["", f"picture: {self.picture}"]
        return "\n".join(lines)

    def _files(self) -> str:
        if not self.compared:
            return "images: the store does not say of which files it was made, so changes since cannot be seen"
        if not self.changed:
            return f"images: {count(self.compared, 'file')} compared, all as they were when their regions were made"
        more = f" and {len(self.changed) - SHOWN:,} more" if len(self.changed) > SHOWN else ""
        names = ", ".join(self.changed[:SHOWN]) + more
        return f"images: {len(self.changed):,} of {self.compared:,} have changed since their regions were made: {names}"


def check(
    out: str | os.PathLike,
    coco: str | os.PathLike | None = None,
    data: str | os.PathLike | None = None,
    picture: str | os.PathLike | None = None,
) -> CheckReport:
    """Check a store.

    Args:
        out: folder of the store.
        coco: COCO json of annotated objects, to measure their recall at 10, 50, 100 and, if images have more than 100
            boxes, 1000. Images are matched by their paths, which may begin at another folder.
        data: folder, list file or json of the images, to draw a picture of some of them, and to see which have changed
            since the store was built.
        picture: file of the picture; None is ``check.png`` in the store's folder.

    Raises:
        StoreError: there is no store, or it is damaged.
        SettingError: no annotated image is in the store, none of the store's images is in ``data``, or ``picture`` is
            given without ``data``.
    """
    if picture is not None and data is None:
        raise SettingError(f"a picture, {picture}, needs data: the images")
    if picture is not None:
        require_picture(picture)
    store = RegionStore(out)
    store.verify()
    found = statistics(store)
    truth = None if coco is None else _Truth.read(Path(coco), store)
    recall = None
    if truth is not None:
        recall = Recall([k for k in AT if k <= 100 or found.counts.max() > 100])
        for path, (boxes, areas) in truth.objects.items():
            recall.add(store.lookup(path)[0].boxes, boxes, areas)
        recall = recall.table()
    saved, compared, changed = None, None, []
    if data is not None:
        root, places = _match(store, data)
        known = {place: name for name, place in places.items() if store.digest(name)}
        compared = len(known)
        changed = [
            known[place] for place in changed_files(((p, store.digest(name)) for p, name in known.items()), root)
        ]
        saved = Path(out, "check.png") if picture is None else Path(picture)
        draw_regions(_choose(store, root, places, truth)).save(saved)
    return CheckReport(
        store=os.fspath(out),
        statistics=found,
        unreadable=store.manifest["about"].get("unreadable", {}),
        recall=recall,
        annotated=(0, 0) if truth is None else (truth.found, truth.images),
        resized=0 if truth is None else truth.found - len(truth.objects),
        compared=compared,
        changed=changed,
        picture=saved,
    )


class _Truth(NamedTuple):
    """Annotations of the store's images.

    Attributes:
        images: number of annotated images.
        found: number of them that the store has.
        objects: boxes (G, 4) and areas (G,) of the objects, by the store's path; images of another size are left out.
    """

    images: int
    found: int
    objects: dict[str, tuple[np.ndarray, np.ndarray]]

    @classmethod
    def read(cls, place: Path, store: RegionStore) -> "_Truth":
        content = read_json(place)
        images = Images(place, content)
        rows: dict[str, list[tuple]] = {name: [] for name in images.paths}
        for one in list_of(content, "annotations", place, ("image_id", "bbox")):
            x, y, width, height = one["bbox"]
            if not one.get("iscrowd"):
                area = one.get("area", width * height)
                rows[images.with_id(one["image_id"])].append((x, y, x + width, y + height, area))
        meant = match_paths(rows, store.paths())
        if not meant:
            raise SettingError(
                f"none of the {count(len(rows), 'image')} of {place}, such as {next(iter(rows), None)!r}, is among the "
                f"{len(store)} of {store.path}, such as {next(store.paths())!r}"
            )
        objects = {}
        for name, path in meant.items():
            size = store.lookup(path)[1]
            if images.stated.get(name, size) == size:
                known = np.array(rows[name], np.float64).reshape(-1, 5)
                objects[path] = known[:, :4], known[:, 4]
        return cls(len(rows), len(meant), objects)


def _match(store: RegionStore, data: str | os.PathLike) -> tuple[str, dict[str, str]]:
    """The root of the data, and the path there of each of the store's images that it has."""
    listed = list_images(data)
    root, paths = listed.root, listed.paths
    places = match_paths(store.paths(), paths, root)
    if not places:
        raise SettingError(
            f"no image of {data}, such as {paths[0]!r}, is in {store.path}, such as {next(store.paths())!r}"
        )
    return root, places


def _choose(store: RegionStore, root: str, places: Mapping[str, str], truth: _Truth | None) -> list[Shown]:
    """Choose up to ``SHOWN`` evenly spaced images that have regions and, with annotations, objects."""
    wanted = [path for path in places if truth is None or len(truth.objects.get(path, [()])[0])]
    shown = []
    for number in np.unique(np.linspace(0, len(wanted) - 1, SHOWN).round().astype(int)):
        path = wanted[number]
        found, size = store.lookup(path)
        try:
            pixels = read_image(os.path.join(root, places[path])).image
        except UnreadableImage:
            continue
        if pixels.shape[1::-1] == size:
            shown.append(Shown(path, pixels, found, None if truth is None else truth.objects[path][0]))
    if not shown:
        raise SettingError(f"no image in {root} can be read and has the size that {store.path} was made of")
    return shown
