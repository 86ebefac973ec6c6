"""Find the parts of a data set in Pascal VOC's layout: one folder, or one for each year."""

import glob
from pathlib import Path
from typing import NamedTuple

from densessl.data.sources import EXTENSIONS
from densessl.errors import FileMissing, SettingError
from densessl.finetune.labels.table import Labels
from densessl.finetune.labels.voc import listed, read_voc

# Lists of the train set and of the validation set, the preferred ones first.
SPLITS = (("trainval", "test"), ("train", "val"), ("train", "test"), ("train", "valid"), ("trainval", "val"))
LAYOUT = "Annotations/*.xml, JPEGImages/* and ImageSets/Main/{trainval,test} or {train,val}.txt, there or in VOC2007/ …"


class VocPart(NamedTuple):
    """A list of images, and the folder that has their ``Annotations`` and ``JPEGImages``."""

    folder: Path
    names: Path


def find_parts(root: Path) -> dict[str, list[VocPart]]:
    """Return the parts for ``"train"`` and ``"val"``.

    Raises:
        FileMissing: there is no such folder, or nothing in this layout.
        SettingError: the lists are not a pair of :data:`SPLITS`.
    """
    if not root.is_dir():
        raise FileMissing(f"--voc-root: there is no folder {root}")
    folders = [each for each in (root, *sorted(root.glob("*/")), *sorted(root.glob("*/*/"))) if _has_xml(each)]
    if not folders:
        raise FileMissing(f"{root} has no folder Annotations with XML files; expected {LAYOUT}")
    lists = [
        VocPart(folder, path)
        for folder in folders
        for path in sorted([*folder.glob("ImageSets/Main/*.txt"), *folder.glob("ImageSets/*.txt")])
    ]
    for train, val in SPLITS:
        parts = {
            "train": [each for each in lists if each.names.stem == train],
            "val": [each for each in lists if each.names.stem == val],
        }
        if all(parts.values()):
            return parts
    there = ", ".join(str(each.names.relative_to(root)) for each in lists) or "no list"
    raise SettingError(f"{root} has {there}; expected {LAYOUT}")


def read_parts(root: Path, parts: list[VocPart]) -> Labels:
    """Read the labels of a part; images are named relative to ``root``."""
    files: dict[str, Path] = {}
    for folder, names in parts:
        for name in _images_of(listed(names)):
            files[_image(folder, name).relative_to(root).as_posix()] = folder / "Annotations" / f"{name}.xml"
    labels = read_voc(parts[0].names, list(files), files.__getitem__)
    return labels


def _images_of(lines: list[str]) -> list[str]:
    """Return the names of a list, without what some lists have beside: VOC's lists of a class, -1, 0 or 1 after each
    name; others, a suffix."""
    parts = [line.rsplit(maxsplit=1) for line in lines]
    if all(len(part) == 2 and part[1] in ("-1", "0", "1") for part in parts):
        lines = [name.strip() for name, _ in parts]
    if all(line.lower().endswith(EXTENSIONS) for line in lines):
        lines = [line.rpartition(".")[0] for line in lines]
    return lines


def _has_xml(folder: Path) -> bool:
    return next((folder / "Annotations").rglob("*.xml"), None) is not None


def _image(folder: Path, name: str) -> Path:
    """Return the image of a name, by the first suffix, in any case, that exists."""
    stem = folder / "JPEGImages" / name
    suffixes = [".jpg", *EXTENSIONS, *(suffix.upper() for suffix in EXTENSIONS)]
    candidates = [stem.with_name(f"{stem.name}{suffix}") for suffix in suffixes]
    found = next((each for each in candidates if each.is_file()), None)
    if found is None:
        alike = sorted(stem.parent.glob(f"{glob.escape(stem.name)}.*"))
        found = next((each for each in alike if each.suffix.lower() in EXTENSIONS and each.stem == stem.name), None)
    return found or candidates[0]
