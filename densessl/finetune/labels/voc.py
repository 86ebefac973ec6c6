"""Read Pascal VOC's XML files."""

import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from pathlib import Path

from densessl.errors import FileMissing, SettingError
from densessl.finetune.labels.table import ABSENT, Labels, Notes, Photo, Rows, refuse_outside, refuse_twice, text_of

MOST = 1 << 20  # pixels of a side; no image is larger
CORNERS = ("xmin", "ymin", "xmax", "ymax")


def listed(path: Path) -> list[str]:
    """Return the names in a list of ``ImageSets``.

    Raises:
        SettingError: a name occurs twice or leads outside the folder, or there is none.
    """
    names = [line.strip() for line in text_of(path).splitlines() if line.strip()]
    if not names:
        raise SettingError(f"{path} lists no image")
    refuse_twice(path, "the image", names)
    refuse_outside(path, names)
    return names


def read_voc(source: Path, names: Sequence[str], xml_of: Callable[[str], Path], whole: bool = True) -> Labels:
    """Read the XML files of a list of images.

    As in MMDetection's reader, corners are counted from 1, and 1 is subtracted from all of them.

    Args:
        source: the list, for messages.
        names: images, without suffix.
        xml_of: returns the XML file of an image.
        whole: whether coordinates count as whole numbers, as in MMDetection's reader.

    Raises:
        SettingError: a file is missing, or is not in this format.
    """
    notes, rows, photos = Notes(), Rows(), []
    categories: dict[str, int] = {}
    for name in names:
        root = _root(xml_of(name))
        photos.append(Photo(name, *_size(root, notes, name), name))
        for entry in root.findall("object"):
            category = _name(entry, notes, name)
            rows.add(
                len(photos) - 1,
                -1 if category is None else categories.setdefault(category, len(categories)),
                _corners(entry.find("bndbox")),
                _difficult(entry, notes, name),
                math.nan,
                None,
            )
    return Labels(
        source,
        list(categories),
        photos,
        rows.objects(),
        origin=1,
        whole=whole,
        areas=False,
        mended=notes.mended,
        left_out=notes.left_out,
        first=notes.first,
    )


def _root(path: Path) -> ElementTree.Element:
    try:
        root = ElementTree.parse(path).getroot()
    except FileNotFoundError as error:
        raise FileMissing(f"{path}: no such file, though the list of images has {path.stem}") from error
    except (ElementTree.ParseError, UnicodeError, LookupError) as error:  # LookupError: an encoding that is unknown
        raise SettingError(f"{path} is not in Pascal VOC's format: {error}") from error
    if root.tag != "annotation" and root.find("object") is None and root.find("size") is None:
        raise SettingError(f"{path} is not in Pascal VOC's format: found <{root.tag}>, expected <annotation>")
    return root


def _name(entry: ElementTree.Element, notes: Notes, where: str) -> str | None:
    given = entry.findtext("name")
    name = (given or "").strip()
    if given is not None and name != given:
        notes.mend("spaces around names removed", where)
    return name or None


def _size(root: ElementTree.Element, notes: Notes, where: str) -> tuple[int, int]:
    """Return width and height; 0 if the file does not say."""
    texts = [root.findtext(f"size/{side}") for side in ("width", "height")]
    numbers = [_number(text) for text in texts]
    if all(0 < number < MOST and text.strip().isdecimal() for number, text in zip(numbers, texts)):
        return int(texts[0]), int(texts[1])
    if all(1 <= number < MOST for number in numbers):
        notes.mend("sizes written as whole numbers", where)
        return int(numbers[0]), int(numbers[1])
    return 0, 0


def _corners(box: ElementTree.Element | None) -> list[float]:
    """Return the corners, less 1; NaN for what is no number."""
    texts = [None if box is None else box.findtext(tag) for tag in CORNERS]
    return [ABSENT] * 4 if not any(texts) else [_number(text) - 1 for text in texts]


def _difficult(entry: ElementTree.Element, notes: Notes, where: str) -> bool:
    text = entry.findtext("difficult")
    if text is None or text.strip() in ("0", "1"):
        return text is not None and text.strip() == "1"
    notes.mend("difficult set", where)
    return _number(text) >= 1 or text.strip().lower() == "true"


def _number(text: str | None) -> float:
    try:
        return float(text) if text is not None else math.nan
    except ValueError:
        return math.nan
