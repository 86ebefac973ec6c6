"""Find the images of a data set: turn a folder, a list file or a COCO json into a root and a table of paths."""

import itertools
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from densessl.data.path_table import PathTable
from densessl.errors import FileMissing, SettingError
from densessl.wording import nearest

EXTENSIONS = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
LIST_EXTENSIONS = (".txt", ".lst")
_CHECKED = 8  # entries of a list or json that must exist; checking millions would take minutes on a network disk


class DataNotFound(FileMissing):
    """The data set does not exist, or none of its images does. The message says which places were tried.

    Attributes:
        argument: the argument of :func:`list_images` to change, ``"source"`` or ``"root"``; None for neither.
    """

    def __init__(self, message: str, argument: str | None = None) -> None:
        super().__init__(message)
        self.argument = argument


@contextmanager
def remedies(**by_argument: str) -> Iterator[None]:
    """End the message of a DataNotFound with what the user can do: each command has options of its own.

    Args:
        by_argument: a sentence for each argument of :func:`list_images`.
    """
    try:
        yield
    except DataNotFound as error:
        if error.argument not in by_argument:
            raise
        raise type(error)(f"{error}. {by_argument[error.argument]}") from error


class ImageList(NamedTuple):
    """The images of a data set.

    Attributes:
        root: absolute folder.
        paths: paths of the images relative to ``root``, with "/" as separator. (Absolute paths of a list file stay
            absolute.)
        others: number of files of a folder that are no images, by suffix, the most frequent first.
    """

    root: str
    paths: PathTable
    others: Mapping[str, int] = {}


def list_images(source: str | os.PathLike, root: str | os.PathLike | None = None, most: int | None = None) -> ImageList:
    """List the images of a data set; labels are ignored.

    Args:
        source: one of

            - a folder: all images in it and below it, recognised by their extension (any case), sorted by path. Links
              to folders are followed, but each folder is read once; hidden files and folders are skipped;
            - a list file (.txt, .lst): one path per line, in the listed order; blank lines and lines beginning with "#"
              are skipped;
            - a COCO json: ``images[].file_name``, in the listed order.

            A source that does not exist is looked for under ``root``.
        root: folder that the entries of a list file or json are relative to. Default for a list file: its own folder.
            For ``D/annotations/instances_train2017.json``: the first of ``train2017``, ``images/train2017``, the folder
            itself and ``images``, in ``D/annotations`` and then in ``D``, that holds the first images.
        most: list only the first ``most`` images, and stop reading there.

    Raises:
        DataNotFound: there is no ``source``; it names no image; or one of its first eight entries is not a file.
        SettingError: ``source`` is a file of another kind, or its contents do not fit its kind.
    """
    place = _locate(source, root)
    if place.is_dir():
        return ImageList(str(place), *_folder(place, most))
    kind = place.suffix.lower()
    if kind in LIST_EXTENSIONS:
        with open(place, encoding="utf-8-sig", errors="surrogateescape") as lines:
            stripped = (line.strip() for line in lines)
            listed = (line for line in stripped if line and not line.startswith("#"))
            paths = PathTable(itertools.islice(listed, most))
        roots = [Path(root) if root is not None else place.parent]
    elif kind == ".json":
        paths = PathTable(itertools.islice(_coco_file_names(place), most))
        roots = [Path(root)] if root is not None else _coco_roots(place)
    else:
        raise SettingError(
            f"data source {place}: expected a folder, a list file ({' or '.join(LIST_EXTENSIONS)}) or a COCO .json"
        )
    if not paths:
        raise DataNotFound(f"{place} names no image")
    return ImageList(_root_of(place, roots, list(itertools.islice(paths, _CHECKED))), paths)


def _locate(source: str | os.PathLike, root: str | os.PathLike | None) -> Path:
    tried = [Path(os.path.abspath(source))]
    if root is not None:
        tried.append(Path(os.path.abspath(os.path.join(root, source))))
    for place in tried:
        if place.exists():
            return place
    places = " or ".join(dict.fromkeys(map(str, tried)))
    raise DataNotFound(f"no data set at {places}{_near(tried[0])}", "source")


def _near(place: Path) -> str:
    """The names most like the first missing part of a path, in the deepest folder of the path that exists."""
    missing = place
    while not missing.parent.is_dir():
        missing = missing.parent
    names = nearest(missing.name, os.listdir(missing.parent))
    return f" ({missing.parent} has {' and '.join(names) if names else f'no {missing.name}'})"


def _folder(folder: Path, most: int | None) -> tuple[PathTable, dict[str, int]]:
    """The paths of the images in a folder, and the number of its other files by suffix."""
    others: Counter[str] = Counter()
    paths = PathTable(itertools.islice(_walk(str(folder), "", set(), others), most))
    if not paths:
        found = ", ".join(f"{count} {extension or 'without extension'}" for extension, count in others.most_common(5))
        raise DataNotFound(
            f"no image in {folder} or below it: {others.total()} files there{f' ({found})' if found else ''}, none of "
            f"them {', '.join(EXTENSIONS)}"
        )
    return paths, dict(others.most_common())


def _walk(folder: str, prefix: str, seen: set[tuple[int, int]], others: Counter[str]) -> Iterator[str]:
    """Yield the paths of images under ``folder``, sorted as whole strings; count other files by extension."""
    status = os.stat(folder)
    if (status.st_dev, status.st_ino) in seen:
        return
    seen.add((status.st_dev, status.st_ino))
    with os.scandir(folder) as entries:
        names = sorted(entry.name + "/" * entry.is_dir() for entry in entries if not entry.name.startswith("."))
    for name in names:
        extension = os.path.splitext(name)[1].lower()
        if name.endswith("/"):
            yield from _walk(os.path.join(folder, name), prefix + name, seen, others)
        elif extension in EXTENSIONS:
            yield prefix + name
        else:
            others[extension] += 1


def _coco_file_names(place: Path) -> Iterable[str]:
    try:
        content = json.loads(place.read_bytes())
    except ValueError as error:
        raise SettingError(f"{place} is not JSON: {error}") from error
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list):
        found = f"keys {sorted(content)}" if isinstance(content, dict) else f"a {type(content).__name__}"
        raise SettingError(f"{place} is not in COCO format: expected a list under 'images', found {found}")
    for number, image in enumerate(images):
        if not isinstance(image, dict) or not isinstance(image.get("file_name"), str):
            raise SettingError(f"{place}: images[{number}] has no 'file_name'")
    return (image["file_name"] for image in images)


def _coco_roots(place: Path) -> list[Path]:
    split = place.stem.rpartition("_")[2]
    inside = (split, f"images/{split}", ".", "images")
    return [folder / name for folder in (place.parent, place.parent.parent) for name in inside]


def _root_of(place: Path, roots: list[Path], first: list[str]) -> str:
    """Absolute path of the first of ``roots`` under which all entries in ``first`` are files."""
    lacking = {root: [path for path in first if not (root / path).is_file()] for root in roots}
    best = min(roots, key=lambda root: len(lacking[root]))
    if not lacking[best]:
        return os.path.abspath(best)
    others = ", ".join(os.path.abspath(root) for root in roots if root != best)
    also = f"; its first images are not all under {others} either" if others else ""
    raise DataNotFound(
        f"{place} names {lacking[best][0]!r}, which is not a file under {os.path.abspath(best)}, the folder that its "
        f"paths are relative to{also}",
        "root",
    )
