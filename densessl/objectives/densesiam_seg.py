"""DenseSiam for unsupervised segmentation (Zhang et al., ECCV 2022, arXiv 2203.11075), following its released code."""

import math
from collections.abc import Callable, Sequence
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densessl.branches.branch import Branch, parts_for
from densessl.constraints import Count, NonNegative
from densessl.data.batch import Batch
from densessl.geometry import ViewGeometry, cell_centres, sampling_grid
from densessl.losses import full_precision, global_count, sample_points, soft_cross_entropy, valid_mean
from densessl.objectives.densesiam import RegionObjective
from densessl.registry import OBJECTIVES


def auto_weights(classes: int, aux_classes: int) -> tuple[float, float]:
    """Weights of the losses over ``classes`` and over ``aux_classes``, as in PiCIE. Each weight is the share of the
    *other* loss in the sum of the largest entropies, so that both losses start equal. Without auxiliary classes (0) the
    weights are 1 and 0."""
    if not aux_classes:
        return 1.0, 0.0
    total = math.log(classes) + math.log(aux_classes)
    return math.log(aux_classes) / total, math.log(classes) / total


def shared_places(
    first: ViewGeometry, second: ViewGeometry, grid: tuple[int, int]
) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """Match the cells of the first view with places of the second.

    Args:
        first, second: geometry of the two views.
        grid: (height, width) of the first view's map.

    Returns:
        A function that samples a map (N, C, h, w) of the second view at the places of the first view's cells, which
        gives (N, C, height, width); and (N, height, width) bool, the cells that lie in the second view.
    """
    with torch.no_grad():
        points = sampling_grid(second, cell_centres(first, grid))
        valid = (points.abs() <= 1).all(2).unflatten(1, grid)
    # Cached by the identity of the tensor: a map that several heads read is sampled once.
    return cache(lambda features: sample_points(features, points).mT.unflatten(2, grid)), valid


def class_counts(labels: Tensor, valid: Tensor, classes: int) -> Tensor:
    """Number of valid cells of each class, (classes,): ``bincount`` without waiting for the device."""
    zeros = torch.zeros(classes, dtype=torch.int64, device=labels.device)
    return zeros.scatter_add_(0, labels.flatten(), valid.flatten().long())


def hard_cross_entropy(
    logits: Tensor, labels: Tensor, valid: Tensor, rebalance: bool = True, mean: str = "global"
) -> tuple[Tensor, Tensor]:
    """Cross entropy of cells against labels, ``w_y CE(z, y)``, where ``w_c`` is the share of class c among the labels.

    As in the official code, *frequent* classes weigh more, and the weights do not sum to 1 over the cells.

    Args:
        logits: (N, C, H, W).
        labels: (N, H, W), 0 to C - 1.
        valid: (N, H, W) bool, the labels that count towards the shares.
        rebalance: False sets all weights to 1.
        mean: count the shares over all ranks ("global"), or on this one ("local").

    Returns:
        Losses (N, H, W), and shares (C,) without gradient.
    """
    (logits,) = full_precision(logits)
    counts = class_counts(labels, valid, logits.shape[1]).to(logits.dtype)
    if mean == "global":
        counts = global_count(counts)
    shares = counts / counts.sum().clamp(min=1)
    with torch.autocast(logits.device.type, enabled=False):
        rows = F.cross_entropy(logits, labels, reduction="none")
    return (shares[labels] * rows if rebalance else rows), shares


@OBJECTIVES.register_module()
class DenseSiamSegmentation(RegionObjective):
    """Cells of two aligned views agree on soft classes (section 3 and the released code).

    ``loss = w_pixel L_pixel + w_aux L_aux + region_weight L_region + seg_weight L_seg``. L_pixel is the mean over cells
    and both directions of the cross entropy between the predicted classes of one view and the projected classes of the
    other. L_aux is the same over ``aux_classes``, with separate heads; w_pixel and w_aux are :func:`auto_weights`.
    L_region contrasts regions (:class:`densessl.objectives.densesiam.RegionContrast`). L_seg is the mean of
    :func:`hard_cross_entropy` over the projections of both views, each against its own largest class.

    The second view's map is sampled at the places of the first view's cells before any head sees it. In the official
    code the second view is the whole image, and its map is cropped, resized and flipped with the first view's draw: the
    same places, up to its rounding of the crop to whole cells.

    ``channel_std`` of the first view's projections is 1, due to their last norm, and 0 once all features are equal;
    ``classes_used``, the exponential of the entropy of the labels, falls to 1 when one class takes all cells;
    ``agreement`` is the share of cells to which both views give the same label.

    Args:
        classes: number of classes of the projector, which are the clusters.
        aux_classes: number of classes of the auxiliary heads; 0 for none.
        seg_weight: weight of L_seg, a number.
        rebalance: whether labels are weighted by the frequency of their class, as in the code
            (:func:`hard_cross_entropy`).
        level: by default the neck's output, where a decoder has merged all stages.
    """

    def __init__(
        self,
        classes: Count = 27,
        aux_classes: Count = 128,
        seg_weight: NonNegative = 1.0,
        rebalance: bool = True,
        level: int | str = "neck.0",
        **kwargs,
    ):
        super().__init__(level=level, **kwargs)
        self.widths = {"pixel": classes, **({"aux": aux_classes} if aux_classes else {})}
        self.term_weights = dict(zip(("pixel", "aux"), auto_weights(classes, aux_classes)))
        self.seg_weight = seg_weight
        self.rebalance = rebalance
        self.predictors = nn.ModuleDict({name: self.predictor_of(dim) for name, dim in self.widths.items()})

    def projectors(self, channels):
        width = channels(self.level)
        heads = {name: self.head(width, dim) for name, dim in self.widths.items()}
        return {**heads, **self.region_projectors(width)}

    def logits(self, branch: Branch, images: Tensor) -> Tensor:
        """Class logits (N, classes, H, W) of images (N, 3, h, w), from which the segmentation is read."""
        features = branch(images, **parts_for(self.level))
        return branch.projector(self.name, "pixel")(features[self.level])

    def consistency(self, name: str, projected: Sequence[Tensor], targets: Sequence[Tensor], valid: Tensor) -> Tensor:
        """Cross entropy between the predictions of one view and the softmax of the other's targets, in both
        directions."""
        rows = [
            soft_cross_entropy(self.predictors[name](z), full_precision(target)[0].softmax(1), dim=1)
            for z, target in zip(projected, targets[::-1])
        ]
        return valid_mean((sum(rows) / 2).flatten(), valid.flatten(), self.mean)

    def forward(self, maps, batch: Batch, step) -> dict[str, Tensor]:
        first, second = self.views
        online = maps["online"]
        grid = tuple(online[first][self.level].shape[2:])
        sample, valid = shared_places(batch.geometry[first], batch.geometry[second], grid)
        losses = {}
        for name in self.widths:
            projected, targets = (
                [branch.project(name, first, self.level), branch.project(name, second, self.level, read=sample)]
                for branch in (online, maps["target"])
            )
            losses[f"loss_{name}"] = self.term_weights[name] * self.consistency(name, projected, targets, valid)
        z = [online.project("pixel", first, self.level), online.project("pixel", second, self.level, read=sample)]
        features = [online[first][self.level], sample(online[second][self.level])]
        labels = [logits.detach().argmax(1) for logits in z]
        seg, shares = zip(*(hard_cross_entropy(*pair, valid, self.rebalance, self.mean) for pair in zip(z, labels)))
        if self.seg_weight:
            losses["loss_seg"] = self.seg_weight * valid_mean((sum(seg) / 2).flatten(), valid.flatten(), self.mean)
        return {
            **losses,
            **self.region_terms(online, features, z, valid, step),
            "valid_pairs": valid.sum(),
            "channel_std": full_precision(z[0].detach())[0].std((0, 2, 3), correction=0).mean(),
            "classes_used": torch.special.entr(shares[0]).sum().exp(),
            "agreement": valid_mean((labels[0] == labels[1]).float().flatten(), valid.flatten(), "local"),
        }
