"""Read COCO's json of boxes and masks."""

import gc
import json
import math
import posixpath
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from densessl.errors import SettingError
from densessl.finetune.labels.table import ABSENT, Labels, Notes, Photo, Rows, refuse_outside, refuse_twice

NAN = math.nan
NO_BOX = (ABSENT, ABSENT, ABSENT, ABSENT)
_CATEGORIES = re.compile(rb'"categories"\s*:\s*\[')


def read_coco(path: Path) -> Labels:
    """Read a json in COCO's format.

    Ids may be numbers or text. An annotation names its image by id, by the id as text, or by file name.

    Raises:
        SettingError: the file is not in this format, or lists no image; an image id, a file name, a category id or a
            category name occurs twice; or a file name leads outside the folder of images.
    """
    raw = path.read_bytes()
    notes = Notes()
    content = _content(path, raw)
    if raw.startswith(b"\xef\xbb\xbf"):
        notes.mend("byte order mark removed")
    photos = [_photo(path, number, each) for number, each in enumerate(_list(path, content, "images"))]
    if not photos:
        raise SettingError(f"{path} lists no image")
    refuse_twice(path, "the file_name", (posixpath.normpath(photo.name) for photo in photos))
    refuse_outside(path, (photo.name for photo in photos))
    refuse_twice(path, "the image id", (str(photo.id) for photo in photos))
    names, numbers = _categories(path, _list(path, content, "categories"), notes)
    if not all(type(photo.id) is int for photo in photos):
        notes.mend("image ids replaced by numbers", count=len(photos))
    annotations = content.get("annotations")
    if not isinstance(annotations, list | None):
        raise SettingError(f"{path} is not in COCO's format of boxes: expected a list under 'annotations'")
    if annotations is None:
        notes.mend("list of annotations added")
    return _with_objects(path, names, numbers, photos, annotations or [], notes)


def category_names(path: Path) -> list[str]:
    """Return the names of the categories by id. The whole file, which may be very large, is parsed only if the list of
    categories is not found without.

    Raises:
        SettingError: the file is not in this format.
    """
    raw = path.read_bytes()
    found = _CATEGORIES.search(raw)
    try:
        if found is None:
            raise ValueError("no list of categories")
        start = found.end() - 1
        entries = json.JSONDecoder().raw_decode(raw[start : start + (1 << 22)].decode(errors="ignore"))[0]
        names = [_category_name(entry) for entry in entries]
        ids = [entry["id"] for entry in entries]
    except (ValueError, KeyError, TypeError, RecursionError):  # another list of that name, UTF-16, or no such file
        entries = _list(path, _content(path, raw), "categories")
        names = _categories(path, entries, Notes())[0]
        ids = [entry["id"] for entry in entries]
    refuse_twice(path, "the category name", names)
    if not all(type(each) is int for each in ids):
        return names
    return [name for _, name in sorted(zip(ids, names), key=lambda pair: pair[0])]


@contextmanager
def _without_collection() -> Iterator[None]:
    """Pause the collection of garbage, which takes a third of the time of reading millions of lists."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _content(path: Path, raw: bytes) -> Mapping[str, Any]:
    try:
        with _without_collection():
            content = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise SettingError(f"{path} is not in COCO's format of boxes: {error}") from error
    if not isinstance(content, Mapping):
        raise SettingError(
            f"{path} is not in COCO's format of boxes: expected a dict, found a {type(content).__name__}"
        )
    return content


def _list(path: Path, content: Mapping[str, Any], key: str) -> list[Any]:
    entries = content.get(key)
    if not isinstance(entries, list) or not all(isinstance(each, Mapping) for each in entries):
        raise SettingError(f"{path} is not in COCO's format of boxes: expected a list of dicts under {key!r}")
    return entries


def _photo(path: Path, number: int, entry: Mapping[str, Any]) -> Photo:
    name = entry.get("file_name")
    if not isinstance(name, str) or not name:
        raise SettingError(f"{path}: images.{number} has file_name={name!r}, expected the name of a file")
    return Photo(name, _whole(entry.get("width")), _whole(entry.get("height")), _id(entry.get("id", name)))


def _categories(path: Path, entries: list[Any], notes: Notes) -> tuple[list[str], dict[Any, int]]:
    names = []
    for number, entry in enumerate(entries):
        if "name" not in entry or "id" not in entry:
            raise SettingError(f"{path}: categories.{number} has {sorted(entry)}, expected an id and a name")
        names.append(_category_name(entry))
        if not isinstance(entry["name"], str):
            notes.mend("category names written as text", names[-1])
        elif names[-1] != entry["name"]:
            notes.mend("spaces around names removed", names[-1])
        if type(entry["id"]) not in (int, str):
            notes.mend("category ids replaced by numbers", names[-1])
    refuse_twice(path, "the category name", names)
    refuse_twice(path, "the category id", (str(entry["id"]) for entry in entries))
    return names, {_id(entry["id"]): number for number, entry in enumerate(entries)}


def _category_name(entry: Mapping[str, Any]) -> str:
    return str(entry["name"]).strip()


def _with_objects(
    path: Path, names: list[str], categories: dict, photos: list[Photo], annotations: list[Any], notes: Notes
) -> Labels:
    exact = {photo.id: number for number, photo in enumerate(photos)}
    alike = {str(photo.id): number for number, photo in enumerate(photos)}
    alike |= {photo.name: number for number, photo in enumerate(photos) if photo.name not in alike}
    categories_alike = {str(key): number for key, number in categories.items()}
    rows, ids, good = Rows(), set(), True
    for entry in annotations:
        if not isinstance(entry, Mapping):
            notes.leave("annotation that is no dict")
            continue
        broken = next((key for key in ("image_id", "category_id") if not _is_id(entry.get(key))), None)
        if broken is not None:  # MMDetection's reader would stop at it, or take true for 1
            notes.leave(f"with a {broken} that is no id")
            continue
        photo = exact.get(entry["image_id"])
        if photo is None:
            photo = alike.get(str(entry.get("image_id")))
            if photo is None:
                notes.leave("of an image that the file does not list", str(entry.get("image_id")))
                continue
            notes.mend("image ids of another type matched", photos[photo].name)
        number = entry.get("id")
        good = good and type(number) is int and number > 0 and number not in ids
        if good:
            ids.add(number)
        category = categories.get(entry["category_id"])
        if category is None and (category := categories_alike.get(str(entry.get("category_id")))) is not None:
            notes.mend("category ids of another type matched", photos[photo].name)
        rows.add(
            photo,
            -1 if category is None else category,
            _corners(entry.get("bbox"), notes, photos[photo].name),
            _ignored(entry, notes, photos[photo].name),
            _number(entry.get("area")),
            entry.get("segmentation") or None,
        )
    if not good:
        notes.mend("annotation ids renumbered", count=len(rows.photo))
    return Labels(path, names, photos, rows.objects(), mended=notes.mended, left_out=notes.left_out, first=notes.first)


def _is_id(value: Any) -> bool:
    return type(value) in (int, str, float)


def _id(value: Any) -> Any:
    """An id as a whole number if it is one, otherwise as text."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if type(value) is int else str(value)


def _ignored(entry: Mapping[str, Any], notes: Notes, name: str) -> bool:
    """Whether an annotation is a crowd, or marked as ignored, which MMDetection's reader and COCO's evaluation treat
    differently."""
    crowd = entry.get("iscrowd")
    if "iscrowd" not in entry or (crowd is not None and crowd not in (0, 1)):
        notes.mend("iscrowd set", name)
    flag = entry.get("ignore")
    ignored = flag not in (None, 0, "0", "", "false", "False")
    is_crowd = crowd not in (None, 0, "0", "", "false", "False")
    if ignored and not is_crowd:
        notes.mend("marked as ignored, made ignored regions", name)
    return ignored or is_crowd


def _corners(box: Any, notes: Notes, name: str) -> tuple[float, float, float, float]:
    if not isinstance(box, list | tuple) or len(box) != 4:
        return NO_BOX
    x, y, width, height = box
    if not (type(x) in _NUMBERS and type(y) in _NUMBERS and type(width) in _NUMBERS and type(height) in _NUMBERS):
        try:
            x, y, width, height = map(float, box)
        except (TypeError, ValueError, OverflowError):
            return NAN, NAN, NAN, NAN
        notes.mend("boxes of text turned into numbers", name)
    try:
        return x, y, float(x + width), float(y + height)
    except OverflowError:  # whole numbers of hundreds of digits
        return NAN, NAN, NAN, NAN


_NUMBERS = (int, float)


def _number(value: Any) -> float:
    try:
        return float(value) if type(value) in _NUMBERS else NAN
    except OverflowError:
        return NAN


def _whole(value: Any) -> int:
    """A size in pixels; 0 if it is none."""
    return int(value) if math.isfinite(_number(value)) and value > 0 else 0
