"""Find the images of a data set: turn folders, archives, lists or a COCO json into a root and a table of paths."""

import importlib.util
import itertools
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from densessl.data.archives import ARCHIVES, archive_of, is_archive, members
from densessl.data.listings import LISTINGS, listed_paths
from densessl.data.path_table import PathTable
from densessl.errors import FileMissing, SettingError
from densessl.wording import nearest

EXTENSIONS = (
    *(".avif", ".bmp", ".dib", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".jpx", ".mpo", ".pbm"),
    *(".pfm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
)
HEIC = (".heic", ".heif")  # images where the extra `heif` is installed
IRREGULAR = "pipe, socket or device"  # what stands for a suffix in ``ImageList.others``
OUTSIDE = "path that leads out of the archive"  # likewise
_CHECKED = 8  # entries of a list or json of which half must exist: looking for millions takes too long

Source = str | os.PathLike | Sequence[str | os.PathLike]


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
        root: absolute folder, or archive.
        paths: paths of the images relative to ``root``, with "/" as separator. (Absolute paths of a list file stay
            absolute.)
        others: number of files of a folder or archive that are no images, by suffix, the most frequent first.
    """

    root: str
    paths: PathTable
    others: Mapping[str, int] = {}


def list_images(source: Source, root: str | os.PathLike | None = None, most: int | None = None) -> ImageList:
    """List the images of a data set; labels are ignored.

    Args:
        source: one of

            - a folder: all images in it and below it, recognised by their extension (any case), sorted by path. Links
              to folders are followed, but each folder is read once; hidden files and folders are skipped;
            - an archive (.zip, .tar), read as a folder without being unpacked;
            - a list file (.txt, .lst, .csv, .parquet, .yaml), see :mod:`densessl.data.listings`, in the listed order;
            - a COCO json: ``images[].file_name``, in the listed order;
            - an image: a data set of one;
            - a list of several of these, whose images follow each other. ``ImageList.root`` is then the deepest folder
              that holds them all.

            A source that does not exist is looked for under ``root``.
        root: folder that the entries of a list file or json are relative to. Default for a list file: its own folder.
            For ``D/annotations/instances_train2017.json``: the first of ``train2017``, ``images/train2017``, the folder
            itself and ``images``, in ``D/annotations`` and then in ``D``, that holds the first images.
        most: list only the first ``most`` images, and stop reading there.

    Raises:
        DataNotFound: there is no ``source``; it names no image; or most of its first eight entries are not files.
        SettingError: ``source`` is a file of another kind, its contents do not fit its kind, or one image comes twice.
    """
    if not isinstance(source, str | os.PathLike):
        return _joined([list_images(each, root, most) for each in source], most)
    place = _locate(source, root)
    if place.is_dir():
        return _of_names(place, _walk(str(place), "", set(), others := Counter()), others, most)
    if is_archive(place):
        return _of_names(place, _inside(place, others := Counter()), others, most)
    kind = place.suffix.lower()
    if kind in extensions():
        return ImageList(str(place.parent), PathTable([place.name]))
    if kind not in LISTINGS:
        raise SettingError(
            f"data source {place}: expected a folder, an archive ({', '.join(ARCHIVES)}), a list "
            f"({', '.join(each for each in LISTINGS if each != '.json')}), a COCO .json or an image"
        )
    paths = PathTable(itertools.islice(listed_paths(place), most))
    if not paths:
        raise DataNotFound(f"{place} names no image")
    roots = [Path(root)] if root is not None else _coco_roots(place) if kind == ".json" else [place.parent]
    return ImageList(_root_of(place, roots, list(itertools.islice(paths, _CHECKED))), paths)


def extensions() -> tuple[str, ...]:
    """Suffixes of the files of a folder that are images."""
    return EXTENSIONS + (HEIC if importlib.util.find_spec("pillow_heif") else ())


def _joined(lists: Sequence[ImageList], most: int | None) -> ImageList:
    """Several data sets as one."""
    if not lists:
        raise SettingError("dataset.source: an empty list, expected one or more folders, lists or archives")
    root = os.path.commonpath([each.root for each in lists])
    others: Counter[str] = Counter()
    for each in lists:
        others.update(each.others)
    return ImageList(root, PathTable(itertools.islice(_together(lists, root), most)), dict(others.most_common()))


def _together(lists: Iterable[ImageList], root: str) -> Iterator[str]:
    """Yield the paths of several data sets relative to one root. Raises SettingError: one comes twice."""
    seen: set[int] = set()  # hashes: 60 bytes a path while the table is made
    for each in lists:
        prefix = os.path.relpath(each.root, root)
        for path in each.paths:
            path = path if prefix == "." or path.startswith("/") else f"{prefix}/{path}"
            if hash(path) in seen:
                raise SettingError(f"dataset.source: {os.path.join(root, path)} comes twice")
            seen.add(hash(path))
            yield path


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


def _of_names(place: Path, names: Iterator[str], others: Counter[str], most: int | None) -> ImageList:
    """The images in a folder or archive, and the number of its other files by suffix, which ``names`` counts."""
    paths = PathTable(itertools.islice(names, most))
    if not paths:
        found = ", ".join(f"{count} {extension or 'without extension'}" for extension, count in others.most_common(5))
        heic = any(others[suffix] for suffix in HEIC)
        raise DataNotFound(
            f"no image in {place} or below it: {others.total()} files there{f' ({found})' if found else ''}, none of "
            f"them {', '.join(EXTENSIONS)}" + ("; HEIC needs the package pillow-heif (extra `heif`)" if heic else "")
        )
    return ImageList(str(place), paths, dict(others.most_common()))


def _walk(folder: str, prefix: str, seen: set[tuple[int, int]], others: Counter[str]) -> Iterator[str]:
    """Yield the paths of images under ``folder``, sorted as whole strings; count other files by extension."""
    status = os.stat(folder)
    if (status.st_dev, status.st_ino) in seen:
        return
    seen.add((status.st_dev, status.st_ino))
    known = extensions()
    with os.scandir(folder) as entries:
        kinds = dict(_kind(entry) for entry in entries if not entry.name.startswith("."))
    for name, regular in sorted(kinds.items()):
        extension = os.path.splitext(name)[1].lower()
        if name.endswith("/"):
            yield from _walk(os.path.join(folder, name), prefix + name, seen, others)
        elif not regular:
            others[IRREGULAR] += 1
        elif extension in known:
            yield prefix + name
        else:
            others[extension] += 1


def _kind(entry: os.DirEntry) -> tuple[str, bool]:
    """Name of an entry, with a slash after that of a folder, and whether it is neither pipe, socket nor device."""
    try:
        return entry.name + "/" * entry.is_dir(), entry.is_file() or entry.is_dir() or entry.is_symlink()
    except OSError:  # a link to itself: an image that cannot be read
        return entry.name, True


def _inside(archive: Path, others: Counter[str]) -> Iterator[str]:
    """Yield the images of an archive, sorted; count its other files by extension."""
    known = extensions()
    for name in sorted(members(archive)):
        extension = os.path.splitext(name)[1].lower()
        if name.startswith("/") or ".." in name.split("/"):
            others[OUTSIDE] += 1
            continue
        if any(part.startswith(".") or part == "__MACOSX" for part in name.split("/")):
            continue
        if extension in known:
            yield name
        else:
            others[extension] += 1


def _coco_roots(place: Path) -> list[Path]:
    split = place.stem.rpartition("_")[2]
    inside = (split, f"images/{split}", ".", "images")
    return [folder / name for folder in (place.parent, place.parent.parent) for name in inside]


def _is_file(path: Path) -> bool:
    """Whether a path is a file, or leads into an archive."""
    return path.is_file() or archive_of(path) is not None


def _root_of(place: Path, roots: list[Path], first: list[str]) -> str:
    """Absolute path of the first of ``roots`` under which all entries in ``first`` are files."""
    lacking = {root: [path for path in first if not _is_file(root / path)] for root in roots}
    best = min(roots, key=lambda root: len(lacking[root]))
    few = len(lacking[best]) < len(first) / 2  # missing files: bad images, for which a run has a budget
    if few or not lacking[best]:
        return os.path.abspath(best)
    others = ", ".join(os.path.abspath(root) for root in roots if root != best)
    also = f"; its first images are not all under {others} either" if others else ""
    raise DataNotFound(
        f"{place} names {lacking[best][0]!r}, which is not a file under {os.path.abspath(best)}, the folder that its "
        f"paths are relative to{also}",
        "root",
    )
