"""The one rule by which boxes and masks of all formats are cleaned.

In this order: relative coordinates become pixels if all boxes of a file have them; a missing box is taken from the
mask; corners in the wrong order are swapped; boxes are clipped to the image; areas that are missing or impossible are
computed. Objects without a finite box, without extent, outside the image, or narrower than a pixel after clipping are
left out, as are copies of another object. Sizes that the file lacks, or that boxes exceed, are read from the images.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from densessl.errors import DensesslError, SettingError
from densessl.finetune.labels import masks as mask_forms
from densessl.finetune.labels.table import STAND_IN, UNREADABLE, Labels, Notes, Objects, Photo

LEAST = 1.0  # pixels; MMDetection's reader drops boxes that are narrower
DIGITS = 3  # decimals of a pixel in cleaned files
MOST = 4096  # pixels of an assumed side
AREA_SLACK = 2.0  # a mask that covers more than this multiple of its box is wrong

# Reasons. Those that MMDetection's reader acts on in the same way, so that a train set needs no cleaned file:
UNKNOWN, OTHER = "of a category that the file does not define", "of other categories"
OUTSIDE, FLAT, SMALL = "outside the image", "without extent", "narrower than a pixel"
NOT_LISTED = "of an image that the file does not list"
# and further ones.
NO_BOX, NOT_FINITE, COPIES = "without a box", "with a box that is not finite", "copies of another object"
CLIPPED, SWAPPED, AREA = "clipped to the image", "corners swapped", "areas computed"
SIZES, TRUE_SIZES = "sizes read from the images", "wrong sizes replaced by those of the images"
RELATIVE, FROM_MASK, MASKS = "relative boxes turned into pixels", "boxes taken from masks", "masks rewritten"
RECTANGLES = "masks made from boxes"


@dataclass(frozen=True)
class Cleaned:
    """The labels of a data set after cleaning.

    Attributes:
        labels: with the classes of the data set as ``names``, in their order.
        mended, left_out: counts by reason, those of reading included.
        first: first image with each reason.
        without_masks: objects that should have a mask and have none.
    """

    labels: Labels
    mended: Counter[str]
    left_out: Counter[str]
    first: dict[str, str]
    without_masks: int = 0


def clean(
    labels: Labels,
    classes: Sequence[str],
    size_of: Callable[[str], tuple[int, int]],
    one_class: bool = False,
    masks: bool = False,
    boxes_as_masks: bool = False,
    keep_broken_masks: bool = False,
) -> Cleaned:
    """Clean the labels of a data set.

    Args:
        classes: classes of the data set; objects of other categories are left out.
        size_of: returns width and height of an image by its name.
        one_class: all categories count as the only class.
        masks: objects need masks.
        boxes_as_masks: an object that lacks one gets its box as mask.
        keep_broken_masks: keep masks of which nothing is usable. MMDetection's reader ignores their objects.

    Raises:
        SettingError: only part of the boxes is relative.
    """
    notes = Notes()
    notes.mended.update(labels.mended)
    notes.left_out.update(labels.left_out)
    notes.first.update(labels.first)
    names = [photo.name for photo in labels.photos]
    objects = _of_classes(labels, classes, one_class, names, notes)
    photos = _sized(labels.photos, objects, size_of, notes)
    objects = _in_pixels(labels, objects, photos, notes)
    corners = _boxes(objects, photos, names, notes)
    corners = np.trunc(corners) if labels.whole else corners.round(DIGITS)
    corners = _ordered(corners, objects.photo, names, notes)
    photos = _true_sizes(photos, objects, corners, size_of, notes)
    objects, corners = _inside(objects, corners, photos, names, notes)
    objects = objects._replace(corners=corners, area=_areas(objects, corners, names, notes if labels.areas else None))
    objects = _without_copies(objects, names, notes)
    missing = 0
    if masks:
        objects, missing = _with_masks(objects, photos, boxes_as_masks, keep_broken_masks, notes)
    cleaned = replace(labels, names=list(classes), photos=photos, objects=objects)
    return Cleaned(cleaned, notes.mended, notes.left_out, notes.first, missing)


def _of_classes(labels: Labels, classes: Sequence[str], one_class: bool, names: list[str], notes: Notes) -> Objects:
    """Leave objects of other categories out; ``category`` becomes the index of the class."""
    number = {name: 0 if one_class else index for index, name in enumerate(labels.names if one_class else classes)}
    table = np.array([number.get(name, -1) for name in labels.names] + [-1], np.int64)
    objects = labels.objects
    unknown = objects.category < 0
    category = table[objects.category]
    others = ~unknown & (category < 0)
    for reason, places in ((UNKNOWN, unknown), (OTHER, others)):
        _leave(notes, reason, places, objects.photo, names)
    objects = objects._replace(category=category)
    return objects.at(category >= 0) if (category < 0).any() else objects


def _leave(notes: Notes, reason: str, places: np.ndarray, photo: np.ndarray, names: list[str]) -> None:
    _note(notes.leave, reason, places, photo, names)


def _note(
    note: Callable[[str, str, int], None], reason: str, places: np.ndarray, photo: np.ndarray, names: list[str]
) -> None:
    count = int(places.sum())
    if count:
        note(reason, names[photo[places.argmax()]], count)


def _sized(
    photos: list[Photo], objects: Objects, size_of: Callable[[str], tuple[int, int]], notes: Notes
) -> list[Photo]:
    """Read the sizes that the file lacks. An image that cannot be read is left to the run, which has a budget."""
    if all(photo.width and photo.height for photo in photos):
        return photos
    sized = []
    for number, photo in enumerate(photos):
        if not (photo.width and photo.height):
            try:
                width, height = size_of(photo.name)
                notes.mend(SIZES, photo.name)
            except DensesslError:
                width, height = _size_around(objects.corners[objects.photo == number])
                notes.mend(UNREADABLE, photo.name)
            photo = photo._replace(width=width, height=height)
        sized.append(photo)
    return sized


def _size_around(corners: np.ndarray) -> tuple[int, int]:
    """Return a size, within reason, of an image that cannot be read, whose boxes it holds."""
    reach = np.nan_to_num(corners, nan=0, posinf=0, neginf=0).reshape(-1, 2).max(0, initial=0)
    width, height = np.ceil(reach).clip(STAND_IN, MOST).astype(int).tolist()
    return width, height


def _in_pixels(labels: Labels, objects: Objects, photos: list[Photo], notes: Notes) -> Objects:
    """Turn relative coordinates, 0 to 1, into pixels if all boxes have them."""
    given = objects.corners + labels.origin
    known = np.isfinite(given).all(1)
    relative = known & (given.min(1, initial=0) >= -0.01) & (given.max(1, initial=0) <= 1.01)
    sizes = np.array([(photo.width, photo.height) for photo in photos], np.float64).reshape(-1, 2)[objects.photo]
    relative &= sizes.min(1, initial=np.inf) > 8  # in smaller images, such boxes may be real
    count, of = int(relative.sum()), int(known.sum())
    if count == 0 or (count < 2 and of > 1) or count * 2 < of:
        return objects  # single boxes of a pixel: too small, whatever they mean
    if count < of:
        name = photos[objects.photo[relative.argmax()]].name
        raise SettingError(
            f"{labels.source}: {count} of {of} boxes are relative, from 0 to 1 (first in {name}), and the others in "
            "pixels; expected all in pixels"
        )
    notes.mend(RELATIVE, count=count)
    changed = [mask if mask is None else mask_forms.scaled(mask, *sizes[i]) for i, mask in enumerate(objects.masks)]
    return objects._replace(corners=given * np.tile(sizes, 2), area=np.full(len(given), np.nan), masks=changed)


def _boxes(objects: Objects, photos: list[Photo], names: list[str], notes: Notes) -> np.ndarray:
    """Return the corners, with those that are missing taken from the masks."""
    missing = np.isneginf(objects.corners).all(1)
    if not missing.any():
        return objects.corners
    corners = objects.corners.copy()
    for i in np.flatnonzero(missing):
        photo = photos[objects.photo[i]]
        mask, _ = mask_forms.usable(objects.masks[i], photo.width, photo.height)
        box = mask_forms.box_of(mask) if mask is not None else None
        if box is not None:
            corners[i] = box
            notes.mend(FROM_MASK, photo.name)
    return corners


def _ordered(corners: np.ndarray, photo: np.ndarray, names: list[str], notes: Notes) -> np.ndarray:
    low, high = np.minimum(corners[:, :2], corners[:, 2:]), np.maximum(corners[:, :2], corners[:, 2:])
    swapped = (corners[:, :2] > corners[:, 2:]).any(1)
    _note(notes.mend, SWAPPED, swapped, photo, names)
    return np.concatenate([low, high], 1)


def _true_sizes(
    photos: list[Photo],
    objects: Objects,
    corners: np.ndarray,
    size_of: Callable[[str], tuple[int, int]],
    notes: Notes,
) -> list[Photo]:
    """Check the sizes of images that boxes exceed: a wrong size would cut good boxes."""
    sizes = np.array([(photo.width, photo.height) for photo in photos], np.float64).reshape(-1, 2)
    beyond = (corners[:, 2:] >= sizes[objects.photo] + LEAST).any(1)
    if not beyond.any():
        return photos
    photos = list(photos)
    for i in np.unique(objects.photo[beyond]):
        photo = photos[i]
        try:
            width, height = size_of(photo.name)
        except DensesslError:
            continue  # the size in the file is all that is known; an absent image is reported by those who open it
        if (width, height) != (photo.width, photo.height):
            notes.mend(TRUE_SIZES, photo.name)
            photos[i] = photo._replace(width=width, height=height)
    return photos


def _inside(
    objects: Objects, corners: np.ndarray, photos: list[Photo], names: list[str], notes: Notes
) -> tuple[Objects, np.ndarray]:
    """Clip boxes, and leave out what has no extent in the image."""
    sizes = np.array([(photo.width, photo.height) for photo in photos], np.float64).reshape(-1, 2)[objects.photo]
    limits = np.tile(sizes, 2)
    clipped = np.clip(corners, 0, limits)
    exceeds = np.maximum(-corners, corners - limits).max(1, initial=-np.inf) >= LEAST
    missing = np.isneginf(corners).all(1)
    broken = ~missing & ~np.isfinite(corners).all(1)
    rest = ~missing & ~broken
    flat = rest & (corners[:, :2] == corners[:, 2:]).any(1)
    outside = rest & ~flat & (clipped[:, :2] >= clipped[:, 2:]).any(1)
    small = rest & ~flat & ~outside & ((clipped[:, 2:] - clipped[:, :2]).round(DIGITS) < LEAST).any(1)
    reasons = {NO_BOX: missing, NOT_FINITE: broken, FLAT: flat, OUTSIDE: outside, SMALL: small}
    for reason, places in reasons.items():
        _leave(notes, reason, places, objects.photo, names)
    keep = rest & ~flat & ~outside & ~small
    _note(notes.mend, CLIPPED, keep & exceeds, objects.photo, names)
    return objects.at(keep), clipped[keep]


def _areas(objects: Objects, corners: np.ndarray, names: list[str], notes: Notes | None) -> np.ndarray:
    """Return areas; those that are missing or cannot be become those of the boxes."""
    extents = corners[:, 2:] - corners[:, :2]
    boxes = extents.prod(1)
    with np.errstate(invalid="ignore"):
        wrong = ~(objects.area > 0) | ~(objects.area <= AREA_SLACK * boxes + 4)
    if notes is not None:
        _note(notes.mend, AREA, wrong, objects.photo, names)
    return np.where(wrong, boxes, objects.area).round(DIGITS)


def _without_copies(objects: Objects, names: list[str], notes: Notes) -> Objects:
    """Leave out objects of the same class, box and mask as another one of their image: VOC's evaluation counts the
    detection of the second as wrong."""
    rows = np.column_stack([objects.photo, objects.category, objects.ignore, objects.corners])
    _, inverse, counts = np.unique(rows, axis=0, return_inverse=True, return_counts=True)
    inverse = inverse.reshape(-1)
    keep, seen = np.ones(len(rows), bool), set()
    for i in np.flatnonzero(counts[inverse] > 1):
        key = (int(inverse[i]), repr(objects.masks[i]))
        keep[i] = key not in seen
        seen.add(key)
    _leave(notes, COPIES, ~keep, objects.photo, names)
    return objects if keep.all() else objects.at(keep)


def _with_masks(
    objects: Objects, photos: list[Photo], boxes_as_masks: bool, keep_broken: bool, notes: Notes
) -> tuple[Objects, int]:
    """Return objects with masks that can be read, and the number of those that lack one. Ignored regions without a mask
    get their box."""
    masks: list[Any] = []
    missing = 0
    for i, given in enumerate(objects.masks):
        photo = photos[objects.photo[i]]
        mask, changed = mask_forms.usable(given, photo.width, photo.height)
        if changed:
            notes.mend(MASKS, photo.name)
        if mask is None and (boxes_as_masks or objects.ignore[i]):
            notes.mend(RECTANGLES, photo.name)
            mask = mask_forms.rectangle(objects.corners[i])
        elif mask is None and given is not None and keep_broken:
            mask = given
        elif mask is None:
            missing += 1
            notes.first.setdefault(RECTANGLES, photo.name)
        masks.append(mask)
    return objects._replace(masks=masks), missing
