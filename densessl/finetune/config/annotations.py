"""Read annotation files, and write parts of them in the same format: COCO's json, Pascal VOC's lists and XML files, and
the lists of MMSegmentation."""

import copy
import hashlib
import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config

from densessl.errors import SettingError
from densessl.files import written_whole
from densessl.finetune.config.data_files import Leaf, leaves
from densessl.finetune.labels.coco import category_names
from densessl.wording import listed_names

LAYOUT = ("annotations", "ImageSets", "Main", "Segmentation")  # folders to leave out of a file's name

# The chosen images by name, in order, with the indices of the boxes to keep; None keeps all labels.
Part = Mapping[str, set[int] | None]


class Box(NamedTuple):
    """A box that MMDetection trains on. ``identity`` distinguishes it from others of its image; ``index`` is its index
    in the image or, in COCO's format, in the file."""

    name: str
    identity: str
    index: int


class LabelFile(NamedTuple):
    """An annotation file that has been read.

    Attributes:
        source: Its path in the config.
        content: Its bytes.
        images: Boxes of the data set's classes by image name; empty lists if labels are not boxes.
        classes: Classes of the data set; empty if labels are not boxes.
        write: Writes a part to a path without suffix, and returns the config entries that make a data set read it.
    """

    source: str
    content: bytes
    images: Mapping[str, list[Box]]
    classes: Sequence[str]
    write: Callable[[Part, Path], dict[str, str]]

    @property
    def stem(self) -> str:
        """``instances_train2017``, ``VOC2007_trainval``."""
        path = Path(self.source)
        folders = () if path.is_absolute() else path.parent.parts
        return "_".join([*(part for part in folders if part not in LAYOUT), path.stem])


def read_labels(leaf: Leaf) -> LabelFile:
    """Read the annotation file of a data set.

    Raises:
        SettingError: The labels are not in one file of a known format.
    """
    reader = _of_format(leaf, {"CocoDataset": _read_coco, "XMLDataset": _read_voc, "BaseSegDataset": _read_list})
    if reader is None or not leaf.cfg.get("ann_file"):
        kind = f"{leaf.kind.__module__.partition('.')[0]}'s {leaf.kind.__name__}" if leaf.kind else leaf.cfg.get("type")
        raise SettingError(
            f"--labels: {leaf.key} is {kind} with ann_file={leaf.cfg.get('ann_file', '')!r}; expected a data set in "
            "COCO's format (CocoDataset), in Pascal VOC's (XMLDataset, VOCDataset), or one of mmseg that has a list of "
            "its images as ann_file"
        )
    return reader(leaf)


def _of_format(leaf: Leaf, readers: Mapping[str, Callable]) -> Callable | None:
    """Return the reader of a data set's format, by the name of a class; None if there is none."""
    return next((reader for name, reader in readers.items() if name in leaf.formats), None)


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def put(path: Path, content: bytes) -> None:
    """Write a file atomically. A file with the same content is left alone, because another process may be reading
    it."""
    if not path.is_file() or path.read_bytes() != content:
        with written_whole(path) as temporary:
            temporary.write_bytes(content)


def classes_of(leaf: Leaf) -> list[str]:
    """Return the names of a data set's classes; empty if it has no names."""
    load = getattr(leaf.kind, "_load_metainfo", None)  # a data set that is not MMEngine's may lack it
    return list(load(copy.deepcopy(leaf.cfg.get("metainfo"))).get("classes") or []) if load else []


def check_classes(cfg: Config) -> list[str]:
    """Check that the train sets' classes are in their annotation files, for COCO's and Pascal VOC's formats.

    Returns:
        One line for each data set whose file lacks some of the classes.

    Raises:
        SettingError: A file has none of the classes, or lacks one of a ``NamedCocoDataset``, which needs them all.
    """
    lines = []
    for leaf in leaves(cfg, "train_dataloader"):
        reader = _of_format(leaf, NAMES)
        path, classes = leaf.path(leaf.cfg.get("ann_file") or ""), classes_of(leaf) if reader else []
        if not classes or not path.is_file() or "OneClassCocoDataset" in leaf.formats:
            continue
        names = reader(leaf, path, set(classes))
        lacks = [name for name in classes if name not in names]
        if lacks and (len(lacks) == len(classes) or "NamedCocoDataset" in leaf.formats):
            missing = (
                f"none of the data set's {len(classes)} classes" if len(lacks) == len(classes) else "no class named"
            )
            raise SettingError(
                f"{path} has {missing} {listed_names(lacks)}; it has {listed_names(sorted(names), 80)}. Set "
                f"{leaf.key}.metainfo.classes, or the environment variable CLASSES=NAME,NAME where the config reads it"
            )
        if lacks:
            lines.append(f"{path} has no class named {listed_names(lacks, len(lacks))}")
    return lines


def _coco_names(leaf: Leaf, path: Path, wanted: set[str]) -> set[str]:
    return set(category_names(path))


def _voc_names(leaf: Leaf, path: Path, wanted: set[str]) -> set[str]:
    """Return the names of objects, from as many images as it takes to see all wanted ones."""
    folder, found = _xml_folder(leaf), set()
    for name in _lines(path)[1]:
        found |= _object_names(folder / f"{name}.xml")
        if wanted <= found:
            break
    return found


def _object_names(path: Path) -> set[str]:
    """Return the names of the objects of an XML file, whatever is wrong with their boxes."""
    try:
        return {(each.findtext("name") or "").strip() for each in ElementTree.parse(path).findall("object")}
    except (ElementTree.ParseError, OSError) as error:
        raise SettingError(f"{path} is not in Pascal VOC's format: {error}") from error


NAMES = {"CocoDataset": _coco_names, "XMLDataset": _voc_names}


def _xml_folder(leaf: Leaf) -> Path:
    return leaf.path(leaf.cfg.get("data_prefix", {}).get("sub_data_root", ""), leaf.default("ann_subdir"))


def _read_coco(leaf: Leaf) -> LabelFile:
    path = leaf.path(leaf.cfg["ann_file"])
    raw = path.read_bytes()
    try:
        content = json.loads(raw)
        photos, annotations = content["images"], content["annotations"]
        names = {each["id"]: each["name"] for each in content["categories"]}
        if "OneClassCocoDataset" in leaf.formats:
            names = dict.fromkeys(names, classes_of(leaf)[0])
        files = {photo["id"]: str(photo.get("file_name", photo["id"])) for photo in photos}
        sizes = [(each["image_id"], names[each["category_id"]], each["bbox"]) for each in annotations]
    except (ValueError, KeyError, TypeError) as error:
        raise SettingError(f"{path} is not in COCO's format of boxes: {error!r}") from error
    if len(set(files.values())) < len(files):
        files = {number: str(number) for number in files}
    classes = classes_of(leaf)
    images: dict[str, list[Box]] = {name: [] for name in files.values()}
    for index, (image, name, box) in enumerate(sizes):
        ignored = annotations[index].get("iscrowd") or annotations[index].get("ignore") or min(box[2:]) < 1
        ignored = ignored or annotations[index].get("area", 1) <= 0
        if name in classes and not ignored and image in files:
            images[files[image]].append(Box(name, json.dumps(box), index))

    def write(part: Part, stem: Path) -> dict[str, str]:
        order = {name: number for number, name in enumerate(part)}
        kept = [
            each
            for index, each in enumerate(annotations)
            if (stays := part.get(files.get(each["image_id"]), ())) is None or index in stays
        ]
        kept.sort(key=lambda each: (order[files[each["image_id"]]], each["id"]))
        chosen = sorted((photo for photo in photos if files[photo["id"]] in part), key=lambda p: order[files[p["id"]]])
        target = stem.with_name(f"{stem.name}.json")
        subset = {**content, "images": chosen, "annotations": kept}
        put(target, json.dumps(subset, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode())
        return dict(ann_file=str(target))

    return LabelFile(leaf.cfg["ann_file"], raw, images, classes, write)


def _read_voc(leaf: Leaf) -> LabelFile:
    path = leaf.path(leaf.cfg["ann_file"])
    raw, names = _lines(path)
    folder, classes = _xml_folder(leaf), classes_of(leaf)
    objects = {name: _objects(folder / f"{name}.xml") for name in names}
    images = {name: [box for box in boxes if box.name in classes] for name, boxes in objects.items()}

    def write(part: Part, stem: Path) -> dict[str, str]:
        settings = {}
        if any(stays is not None for stays in part.values()):
            settings["ann_subdir"] = str(stem)
            for name, stays in part.items():
                put(stem / f"{name}.xml", _pruned(folder / f"{name}.xml", stays))
        return settings | _write_list(part, stem)

    return LabelFile(leaf.cfg["ann_file"], raw, images, classes, write)


def _read_list(leaf: Leaf) -> LabelFile:
    raw, names = _lines(leaf.path(leaf.cfg["ann_file"]))
    return LabelFile(leaf.cfg["ann_file"], raw, {name: [] for name in names}, [], _write_list)


def _lines(path: Path) -> tuple[bytes, list[str]]:
    raw = path.read_bytes()
    return raw, [line.strip() for line in raw.decode().splitlines() if line.strip()]


def _write_list(part: Part, stem: Path) -> dict[str, str]:
    target = stem.with_name(f"{stem.name}.txt")
    put(target, "".join(f"{name}\n" for name in part).encode())
    return dict(ann_file=str(target))


def _objects(path: Path) -> list[Box]:
    """Return the boxes of an XML file that are not marked difficult."""
    try:
        objects = ElementTree.parse(path).findall("object")
        return [
            Box(each.findtext("name"), "|".join(number.text for number in each.find("bndbox")), index)
            for index, each in enumerate(objects)
            if int(each.findtext("difficult") or 0) == 0
        ]
    except (ElementTree.ParseError, TypeError, ValueError) as error:
        raise SettingError(f"{path} is not in Pascal VOC's format: {error}") from error


def _pruned(path: Path, stays: set[int] | None) -> bytes:
    """Return an XML file with only the objects to keep."""
    tree = ElementTree.parse(path)
    for index, each in enumerate(tree.findall("object")):
        if stays is not None and index not in stays:
            tree.getroot().remove(each)
    return ElementTree.tostring(tree.getroot(), encoding="utf-8")


def labels_digest(leaf: Leaf) -> str | None:
    """Return the SHA-256 of a data set's annotations: of the file that it names and, in Pascal VOC's layout, of the XML
    files that this file lists. None if the data set names no file."""
    path = leaf.path(leaf.cfg.get("ann_file") or "")
    if not path.is_file():
        return None
    whole = hashlib.sha256(path.read_bytes())
    if "XMLDataset" in leaf.formats:
        for name in _lines(path)[1]:
            whole.update(hashlib.sha256((_xml_folder(leaf) / f"{name}.xml").read_bytes()).digest())
    return whole.hexdigest()


def settings_digest(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the SHA-256 of the file that each entry names; for a folder, of the digests of its XML files."""
    digests = {}
    for key, value in settings.items():
        path = Path(value)
        files = sorted(path.rglob("*.xml")) if path.is_dir() else [path]
        parts = [digest(file.read_bytes()) for file in files]
        digests[key] = parts[0] if path.is_file() else digest("\n".join(parts).encode())
    return digests
