"""The region terms of CCOP (Yang, Huang & Crowley, arXiv 2111.13651). The method is MoCo v2 plus these terms."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from densessl.branches.branch import Level
from densessl.branches.projector import MLP, Init
from densessl.branches.queue import Queue
from densessl.branches.roi import align_regions, assign_levels
from densessl.constraints import AutoCount, Count, NonNegative, Positive, Share
from densessl.data.batch import Batch, Regions
from densessl.data.views import ViewSpec
from densessl.errors import SettingError
from densessl.geometry import box_area, clamp_boxes, jitter_boxes, paired_iou, pairwise_iou
from densessl.losses import full_precision, info_nce, pairwise_hinge, unit, valid_mean
from densessl.losses.reduce import Mean
from densessl.objectives.base import BranchMaps, Forward, Objective, View
from densessl.registry import OBJECTIVES
from densessl.schedules import ScheduledNonNegative, ScheduledShare, Step, scheduled


def over_the_run(start: float, end: float) -> dict:
    """The config of a line over the run that is one step ahead of it, as in the released code."""
    return dict(type="linear", start=start, end=end, lead=1)


IOU_THRESHOLD, JITTER_XY, JITTER_WH = over_the_run(0.8, 0.4), over_the_run(0.15, 0.6), over_the_run(0.35, 1.4)


class Curriculum(NamedTuple):
    """How far positives may lie from their region at a step: their least IoU with it, and the ranges of their
    jitter."""

    iou: float
    xy: float
    wh: float


def candidates(boxes: Tensor, uniforms: Tensor, values: Curriculum, limit: Tensor) -> tuple[Tensor, Tensor]:
    """Candidate boxes of each region: J jittered copies, and the region itself last.

    Args:
        boxes: (M, 4).
        uniforms: (M, J, 4), see :func:`densessl.geometry.jitter_boxes`.
        limit: (M, 2) width and height of each region's view.

    Returns:
        boxes (M, J + 1, 4); valid (M, J + 1) bool, whether a candidate overlaps the region enough. The region itself
        always counts.
    """
    boxes_around = torch.cat([jitter_boxes(boxes, uniforms, values.xy, values.wh, limit), boxes[:, None]], 1)
    valid = paired_iou(boxes_around, boxes[:, None]) >= values.iou
    valid[:, -1] = True
    return boxes_around, valid


def hardest(query: Tensor, keys: Tensor, valid: Tensor) -> Tensor:
    """Index (M,) of the valid key (M, K, C) that is least similar to its query (M, C)."""
    return (query[:, None] * keys).sum(2).masked_fill(~valid, torch.inf).argmin(1)


def by_image(owner: Tensor, images: int, *values: Tensor) -> list[Tensor]:
    """Values (M, …) of regions, arranged by image and padded with zeros: (N, B, …) each, where B is the largest number
    of regions of an image. The last result, (N, B) bool, marks the regions. Waits for the device, to learn B."""
    counts = torch.bincount(owner, minlength=images)
    place = torch.arange(len(owner), device=owner.device) - (counts.cumsum(0) - counts)[owner]
    most = int(counts.max())
    rows = []
    for value in (*values, torch.ones_like(owner, dtype=torch.bool)):
        padded = value.new_zeros(images, most, *value.shape[1:])
        rows.append(padded.index_put((owner, place), value))
    return rows


def within_images(q: Tensor, k: Tensor, boxes: Tensor, real: Tensor, iou: float) -> tuple[Tensor, Tensor]:
    """Similarities between the regions of each image.

    Args:
        q, k: (N, B, C) normalised query and key of each region.
        boxes: (N, B, 4) in the key's view.
        real: (N, B) bool, False for padding.
        iou: upper bound of the overlap of a valid pair, exclusive.

    Returns:
        similarity (N, B, B), with queries as rows and keys as columns; valid (N, B, B) bool: both are regions, and
        their boxes overlap by less than ``iou``.
    """
    q, k = full_precision(q, k)
    with torch.autocast(q.device.type, enabled=False):
        return q @ k.mT, (pairwise_iou(boxes, boxes) < iou) & real[:, :, None] & real[:, None, :]


def between_images(q: Tensor, k: Tensor, real: Tensor) -> Tensor:
    """Mean product of queries and keys of regions of different images, 0 where there is no such pair; arguments as in
    :func:`within_images`. It is the sum over all pairs minus the sum over pairs within images."""
    q, k, counts = q.detach().sum(1), k.sum(1), real.sum(1)
    pairs = counts.sum() ** 2 - (counts**2).sum()
    return ((q.sum(0) * k.sum(0)).sum() - (q * k).sum()) / pairs.clamp(min=1)


@OBJECTIVES.register_module()
class CCOP(Objective):
    """Contrast of regions between images, and within each image, as in the released code.

    RoIAlign reads each region from the map for its size, and a head projects the flattened features. The online branch
    gives e_q from the first view, the target e_k from the second.

    - ``loss_region``: InfoNCE of e_q with one positive and a queue of the positives of earlier steps. The positive is
      the *least* similar of the target's vectors of the region and its jittered copies, among those that overlap it
      enough. The range of the copies grows over the run.
    - ``loss_intra``: for key j of an image, the queries i of its other regions are negatives,
      ``max(0, e_q(i).e_k(j) - e_q(j).e_k(j) + margin)``, where the boxes of i and j overlap by less than ``intra_iou``.

    Both are means over all regions and pairs, 0 with zero gradient where there are none. Not symmetric.

    A region counts if both views show enough of it and it is not too small in them. The random numbers of the jitter
    come with the regions: set ``regions.uniforms=dict(jitter=4 * J)`` in the config for J copies; the order is x, y,
    width and height of each copy. The key without jitter is both a candidate and the key of ``loss_intra``. The
    released code embeds it twice, which differs only by the head's dropout.

    Args:
        levels: maps of one width, those of the smallest regions first.
        sizes: for each of ``levels``, the largest square root of the area of regions that are read from it, in pixels.
            For larger regions see :func:`densessl.branches.roi.assign_levels`.
        output: side of a region's features in cells.
        hidden, dim: hidden and output width of the head.
        dropout, init: dropout and initialisation of the head, see :class:`densessl.branches.MLP`. Dropout is active in
            both branches.
        length: number of keys in the queue.
        temperature: softmax temperature of ``loss_region``.
        kept: least share of its area that a region shows in both views, exclusive.
        min_area: least area of a region in both views, exclusive, in square pixels.
        reference: side in pixels of the views for which ``sizes`` and ``min_area`` are written; for other views they
            are scaled.
        iou_threshold: least IoU of a region and a copy: a number, or the config of a schedule.
        jitter_xy, jitter_wh: ranges of the copies' jitter, likewise.
        margin, intra_iou: margin of ``loss_intra``, and the IoU from which on a pair does not count in it.
        region_weight, intra_weight: weights of the two losses.
        truncate: drop positives that would pass the queue's end, as in the released code, instead of wrapping.
        chunk: largest number of regions that the target embeds at a time, which bounds the memory of their features.
            The 17,600 candidates of 32 images with 50 regions need 230 MiB at these widths, and 680 MiB if all regions
            of a level are embedded at once.
        mean: "global" or "local", see :func:`densessl.losses.reduce.valid_mean`.
    """

    two_views = True

    def __init__(
        self,
        levels: Sequence[Level] = ("neck.0", "neck.1", "neck.2", "neck.3"),
        sizes: Sequence[Positive] = (48, 96, 192, 224),
        output: Count = 7,
        hidden: Count = 2048,
        dim: Count = 128,
        dropout: Share = 0.1,
        init: Init = "normal",
        length: AutoCount = 65536,
        temperature: Positive = 0.2,
        kept: Share = 0.6,
        min_area: NonNegative = 144,
        reference: Positive = 224,
        iou_threshold: ScheduledShare = IOU_THRESHOLD,
        jitter_xy: ScheduledNonNegative = JITTER_XY,
        jitter_wh: ScheduledNonNegative = JITTER_WH,
        margin: float = 0.4,
        intra_iou: Share = 0.05,
        region_weight: NonNegative = 1.0,
        intra_weight: NonNegative = 1.0,
        truncate: bool = False,
        chunk: Count = 2048,
        mean: Mean = "global",
        **kwargs,
    ):
        super().__init__(**kwargs)
        if len(levels) != len(sizes) or list(sizes) != sorted(sizes):
            raise SettingError(
                f"objectives.{self.name}: sizes={tuple(sizes)} for levels={tuple(levels)}, expected a number for "
                "each level, in ascending order"
            )
        self.levels, self.sizes, self.output = tuple(levels), tuple(sizes), output
        self.hidden, self.dim, self.dropout, self.init = hidden, dim, dropout, init
        self.temperature, self.margin, self.intra_iou = temperature, margin, intra_iou
        self.kept, self.min_area, self.reference = kept, min_area, reference
        self.iou_threshold = self._value("iou_threshold", iou_threshold)
        self.jitter_xy, self.jitter_wh = self._value("jitter_xy", jitter_xy), self._value("jitter_wh", jitter_wh)
        self.region_weight, self.intra_weight = region_weight, intra_weight
        self.truncate, self.chunk, self.mean = truncate, chunk, mean
        self.queue = Queue({"regions": dim}, length)

    def unmet(self, views: Sequence[ViewSpec], regions: Mapping[str, Any] | None) -> list[str]:
        if not regions:
            return ["needs regions, but the config has no `regions`"]
        count = (regions.get("uniforms") or {}).get("jitter", 0)
        if count < 1 or count % 4:
            return [f"expected regions.uniforms.jitter=4 * J for J jittered copies of a region, found {count}"]
        return []

    def plan(self) -> list[Forward]:
        first, second = self.views
        return [Forward("online", (first,), self.levels), Forward("target", (second,), self.levels)]

    def projectors(self, channels):
        widths = [channels(level) for level in self.levels]
        if len(set(widths)) > 1:
            raise SettingError(
                f"objectives.{self.name}.levels={self.levels} have {widths} channels, expected one width, as levels "
                "of a neck have"
            )
        dims = (widths[0] * self.output**2, self.hidden, self.dim)
        return {"regions": MLP(dims=dims, dropout=self.dropout, init=self.init)}

    def _value(self, key: str, setting: float | dict) -> Callable[[Step], float]:
        if isinstance(setting, Sequence):  # the form of earlier versions
            raise SettingError(
                f"objectives.{self.name}.{key}={tuple(setting)}: expected a number or a schedule; a line over the run "
                f"is {over_the_run(*setting[:2])}"
            )
        return scheduled(setting, f"objectives.{self.name}.{key}")

    def curriculum(self, step: Step) -> Curriculum:
        """The schedules' values in a step."""
        return Curriculum(self.iou_threshold(step), self.jitter_xy(step), self.jitter_wh(step))

    def surviving(self, batch: Batch) -> Regions:
        """The regions that count. As in the released code, boxes are clamped to one pixel less than the view."""
        regions = batch.regions
        if regions is None:
            raise SettingError(f"objectives.{self.name} needs regions, the batch has none: set `regions` in the config")
        if regions.draws.get("jitter") is None or regions.draws["jitter"].shape[1] % 4:
            numbers = {name: value.shape[1] for name, value in regions.draws.items()}
            raise SettingError(
                f"regions.uniforms is {numbers}; objectives.{self.name} expects jitter=4 * J for J jittered copies"
            )
        chosen = torch.ones_like(regions.owner, dtype=torch.bool)
        for view in self.views:
            scale = batch.geometry[view].view_size.prod(1)[regions.owner] / self.reference**2
            chosen &= (regions.kept[view] > self.kept) & (box_area(regions.boxes[view]) > self.min_area * scale)
        regions = regions.index(chosen)
        boxes = list(regions.boxes)
        for view in self.views:
            boxes[view] = clamp_boxes(boxes[view], batch.geometry[view].view_size[regions.owner] - 1)
        return regions._replace(boxes=boxes)

    def embed(
        self, maps: BranchMaps, view: View, boxes: Tensor, owner: Tensor, limit: Tensor, chunk: int | None = None
    ) -> Tensor:
        """Normalised vectors (M, dim) of the regions (M, 4) of a view."""
        features = [maps[view][level] for level in self.levels]
        level = assign_levels(boxes, self.sizes, limit, self.reference)

        def head(regions: Tensor) -> Tensor:
            return maps.apply("regions", regions.flatten(1))

        return unit(align_regions(features, boxes, owner, level, limit, self.output, head, chunk))

    def forward(self, maps, batch: Batch, step) -> dict[str, Tensor]:
        first, second = self.views
        regions, values = self.surviving(batch), self.curriculum(step)
        owner, boxes, count = regions.owner, regions.boxes[second], len(regions.owner)
        limits = [geometry.view_size[owner] for geometry in (batch.geometry[first], batch.geometry[second])]
        q = self.embed(maps["online"], first, regions.boxes[first], owner, limits[0])
        with torch.no_grad():
            uniforms = regions.draws["jitter"]
            around, valid = candidates(boxes, uniforms.reshape(count, uniforms.shape[1] // 4, 4), values, limits[1])
            each = valid.shape[1]
            repeated = (rows.repeat_interleave(each, 0) for rows in (owner, limits[1]))
            keys = self.embed(maps["target"], second, around.flatten(0, 1), *repeated, self.chunk)
            keys = keys.unflatten(0, (count, each))
            positive = keys[torch.arange(count, device=owner.device), hardest(q, keys, valid)]
            unjittered = keys[:, -1]
        rows, hits = info_nce(q, positive, self.queue.keys("regions"), temperature=self.temperature)
        every = torch.ones_like(hits)

        *padded, padded_boxes, real = by_image(owner, len(batch.keys), q, unjittered, boxes)
        similarity, pairs = within_images(*padded, padded_boxes, real, self.intra_iou)
        hinges = pairwise_hinge(similarity, pairs, self.margin)
        self.queue.push("regions", positive, variable=True, rows=owner, truncate=self.truncate)

        cosine = (q.detach() * positive).sum(1)
        gap = (q.detach() * unjittered).sum(1) - cosine
        return {
            "loss_region": self.region_weight * valid_mean(rows, every, self.mean),
            "loss_intra": self.intra_weight * valid_mean(hinges.flatten(), pairs.flatten(), self.mean),
            "regions": torch.tensor(float(count)),
            "regions_kept": torch.tensor(count / max(1, len(batch.regions.owner))),
            "valid_pairs": pairs.sum(),
            "positive_cosine": valid_mean(cosine, every, "local"),
            "hardest_gap": valid_mean(gap, every, "local"),
            "top1": valid_mean(hits.float(), every, "local"),
            "between_images": between_images(*padded, real),
            "curriculum_iou": torch.tensor(values.iou),
            "jitter_xy": torch.tensor(values.xy),
            "jitter_wh": torch.tensor(values.wh),
            **self.queue.figures("regions"),
        }
