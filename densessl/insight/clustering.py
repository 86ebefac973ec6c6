"""How well clusters of pixels, found without labels, are the classes of a labelled data set.

Clusters have no names, so first each gets a class, one to one, such that most pixels agree (the Hungarian match of IIC,
PiCIE and DenseSiam); then the usual figures of segmentation are taken.
"""

from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from densessl.extras import import_extra


def confusion(labels: Tensor, clusters: Tensor, classes: int) -> Tensor:
    """Counts of pixels by (class, cluster): (classes, classes) int64.

    Args:
        labels: integers of any shape; those outside 0 to ``classes`` - 1 are not counted, such as 255 or -1.
        clusters: the same shape, all from 0 to ``classes`` - 1.

    Raises:
        ValueError: the shapes differ.
    """
    if labels.shape != clusters.shape:
        raise ValueError(
            f"clusters have shape {tuple(clusters.shape)}, labels {tuple(labels.shape)}: expected the same"
        )
    labels, clusters = labels.flatten().long(), clusters.flatten().long()
    known = (labels >= 0) & (labels < classes)
    pairs = classes * labels[known] + clusters[known]
    return torch.bincount(pairs, minlength=classes**2).unflatten(0, (classes, classes))


def over_ranks(counts: Tensor) -> Tensor:
    """The sum of a count over all processes; every process has to call."""
    if dist.is_available() and dist.is_initialized():
        counts = counts.clone()
        dist.all_reduce(counts)
    return counts


def match(counts: Tensor) -> Tensor:
    """The class of each cluster, (K,) int64: of all one-to-one matches, one with the most agreeing pixels.

    Args:
        counts: (K, K) by (class, cluster).

    Raises:
        MissingPackage: scipy is not installed.
    """
    assign = import_extra("scipy.optimize", "matching clusters to classes").linear_sum_assignment
    _, classes = assign(counts.T.cpu().numpy(), maximize=True)
    return torch.from_numpy(classes)


class Scores(NamedTuple):
    """All from 0 to 1.

    Attributes:
        miou: mean of ``iou`` over the classes that have one.
        accuracy: share of the labelled pixels whose cluster has their class.
        iou: (K,) intersection over union of each class; NaN of one that no pixel has and no cluster found.
    """

    miou: float
    accuracy: float
    iou: Tensor


def scores(counts: Tensor, classes: Tensor) -> Scores:
    """Figures of a confusion matrix whose clusters have classes.

    As in the official code, a class that is nowhere in the labels, but whose cluster has pixels, counts with 0.

    Args:
        counts: (K, K) by (class, cluster).
        classes: (K,) the class of each cluster, a permutation: see :func:`match`.
    """
    found = torch.empty_like(counts, dtype=torch.float64)
    found[:, classes] = counts.double()
    hits = found.diagonal()
    iou = hits / (found.sum(0) + found.sum(1) - hits)
    return Scores(iou.nanmean().item(), (hits.sum() / found.sum()).item(), iou)
