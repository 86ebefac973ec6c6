"""Recall of annotated objects by regions."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

AT = (10, 50, 100, 1000)
THRESHOLDS = np.linspace(0.5, 0.95, 10)
# COCO's ranges of an object's area in square pixels, both ends included: an area of 32² counts as small and medium.
SIZES = {"all": (0, np.inf), "small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, np.inf)}


def pairwise_iou(boxes: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """IoU of boxes (B, 4) with boxes (G, 4), both x0, y0, x1, y1: (B, G) float64, 0 if the union is empty."""
    boxes, truth = (np.asarray(given, np.float64).reshape(-1, 4) for given in (boxes, truth))
    low = np.maximum(boxes[:, None, :2], truth[:, :2])
    high = np.minimum(boxes[:, None, 2:], truth[:, 2:])
    shared = (high - low).clip(0).prod(2)
    union = _areas(boxes)[:, None] + _areas(truth) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def best_overlaps(boxes: np.ndarray, truth: np.ndarray, at: Sequence[int] = AT) -> np.ndarray:
    """The best IoU of each object with one of the first boxes.

    Args:
        boxes: (B, 4) x0, y0, x1, y1, best first.
        truth: (G, 4) boxes of the objects.
        at: numbers of first boxes to consider; if there are fewer, all are.

    Returns:
        (len(at), G) float64, 0 if no box overlaps.
    """
    return _best(pairwise_iou(boxes[: max(at)], truth), at)


@dataclass(frozen=True)
class RecallTable:
    """Recall over a set of images.

    Attributes:
        at: numbers of first boxes of each image that were considered.
        images: number of images.
        boxes: mean number of boxes per image.
        objects: number of objects by size: all, small, medium and large.
        abo: by size, (len(at),) mean of the best IoU over all objects; NaN without objects.
        ar: by size, (len(at),) share of objects that are found, averaged over the IoU thresholds .5, .55, ... .95.
    """

    at: tuple[int, ...]
    images: int
    boxes: float
    objects: dict[str, int]
    abo: dict[str, np.ndarray]
    ar: dict[str, np.ndarray]

    def __str__(self) -> str:
        lines = [
            f"{'objects':<17}" + "".join(f"{f'at {k}':>16}" for k in self.at),
            (f"{'':<17}" + f"{'ABO / AR   ':>16}" * len(self.at)).rstrip(),
        ]
        for size, objects in self.objects.items():
            pairs = zip(self.abo[size], self.ar[size]) if objects else []
            lines.append(f"{size:<8}{objects:>9,}" + "".join(f"{f'{abo:.3f} / {ar:.3f}':>16}" for abo, ar in pairs))
        return "\n".join(lines)


class Recall:
    """Collects average best overlap (ABO) and average recall (AR) over images.

    AR is that of COCO, with one-to-one matches: each box, in order, takes the object that it overlaps most among those
    not taken yet. It equals ``pycocotools.COCOeval`` with ``useCats = 0`` and boxes scored by their order. All objects
    have equal weight, whichever image they are in.

    Args:
        at: numbers of first boxes of each image to consider.
    """

    def __init__(self, at: Sequence[int] = AT):
        if not at or min(at) < 1:
            raise ValueError(f"recall at {list(at)} boxes: expected positive numbers")
        self.at = tuple(at)
        self._images = self._boxes = 0
        self._objects = dict.fromkeys(SIZES, 0)
        self._overlap = {size: np.zeros(len(self.at)) for size in SIZES}
        self._found = {size: np.zeros((len(self.at), len(THRESHOLDS))) for size in SIZES}

    def add(self, boxes: np.ndarray, truth: np.ndarray, areas: np.ndarray | None = None) -> None:
        """Add an image.

        Args:
            boxes: (B, 4) x0, y0, x1, y1, best first.
            truth: (G, 4) boxes of the objects, without crowds.
            areas: (G,) areas in square pixels that determine the objects' sizes, in COCO those of the masks; None uses
                the areas of ``truth``.
        """
        truth = np.asarray(truth, np.float64).reshape(-1, 4)
        areas = _areas(truth) if areas is None else np.asarray(areas)
        self._images += 1
        self._boxes += len(boxes)
        iou = pairwise_iou(boxes[: max(self.at)], truth)
        for size, (low, high) in SIZES.items():
            chosen = (areas >= low) & (areas <= high)
            self._objects[size] += int(chosen.sum())
            self._overlap[size] += _best(iou[:, chosen], self.at).sum(1)
            self._found[size] += _found_one_to_one(iou[:, chosen], self.at)

    def table(self) -> RecallTable:
        """The recall over the images added so far."""
        with np.errstate(invalid="ignore"):
            return RecallTable(
                at=self.at,
                images=self._images,
                boxes=self._boxes / max(self._images, 1),
                objects=dict(self._objects),
                abo={size: total / self._objects[size] for size, total in self._overlap.items()},
                ar={size: found.mean(1) / self._objects[size] for size, found in self._found.items()},
            )


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2:] - boxes[:, :2]).prod(1)


def _best(iou: np.ndarray, at: Sequence[int]) -> np.ndarray:
    return np.stack([iou[:k].max(0, initial=0.0) for k in at])


def _found_one_to_one(iou: np.ndarray, at: Sequence[int]) -> np.ndarray:
    """(len(at), thresholds) numbers of objects found by the first boxes, given their IoU (B, G)."""
    taken = np.zeros((len(THRESHOLDS), iou.shape[1]), bool)
    able = np.flatnonzero(iou.max(1, initial=0.0) >= THRESHOLDS[0])
    found = np.zeros((len(at), len(THRESHOLDS)))
    start = 0
    for place in np.argsort(at):
        stop = np.searchsorted(able, at[place])
        for row in iou[able[start:stop], ::-1]:  # reversed: of equal overlaps COCOeval takes the last, argmax the first
            free = np.where((row >= THRESHOLDS[:, None]) & ~taken, row, 0.0)
            chosen = free.argmax(1)
            rows = np.flatnonzero(free[range(len(chosen)), chosen])
            taken[rows, chosen[rows]] = True
        found[place] = taken.sum(1)
        start = stop
    return found
