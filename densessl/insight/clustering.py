"""Measure how well clusters of pixels, found without labels, agree with the classes of a labelled data set.

Clusters have no names, so each is first assigned a class, one to one, such that the most pixels agree (the Hungarian
matching of IIC, PiCIE and DenseSiam). Then the usual segmentation metrics are computed.
"""

from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from densessl.extras import import_extra


def confusion(labels: Tensor, clusters: Tensor, classes: int) -> Tensor:
    """The confusion matrix, (classes, classes) int64: numbers of pixels by (class, cluster).

    Args:
        labels: integers of any shape; those outside 0 to ``classes`` - 1, such as 255 or -1, are not counted.
        clusters: integers of the same shape, all from 0 to ``classes`` - 1.

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
    """Sum a count over all processes; every process must call this."""
    if dist.is_available() and dist.is_initialized():
        counts = counts.clone()
        dist.all_reduce(counts)
    return counts


def match(counts: Tensor) -> Tensor:
    """The class of each cluster, (K,) int64, by the one-to-one matching with the most agreeing pixels.

    Args:
        counts: (K, K) numbers of pixels by (class, cluster).

    Raises:
        MissingPackage: scipy is not installed.
    """
    assign = import_extra("scipy.optimize", "matching clusters to classes").linear_sum_assignment
    _, classes = assign(counts.T.cpu().numpy(), maximize=True)
    return torch.from_numpy(classes)


class Scores(NamedTuple):
    """Segmentation metrics, all from 0 to 1.

    Attributes:
        miou: mean of ``iou`` over the classes, without NaNs.
        accuracy: share of the labelled pixels whose cluster is assigned their class.
        iou: (K,) intersection over union of each class; NaN if the class has neither labelled nor predicted pixels.
    """

    miou: float
    accuracy: float
    iou: Tensor


def scores(counts: Tensor, classes: Tensor) -> Scores:
    """Metrics of a confusion matrix, given the class of each cluster.

    As in DenseSiam's released code, a class without labelled pixels whose cluster has pixels has an IoU of 0.

    Args:
        counts: (K, K) numbers of pixels by (class, cluster).
        classes: (K,) the class of each cluster, a permutation; see :func:`match`.
    """
    found = torch.empty_like(counts, dtype=torch.float64)
    found[:, classes] = counts.double()
    hits = found.diagonal()
    iou = hits / (found.sum(0) + found.sum(1) - hits)
    return Scores(iou.nanmean().item(), (hits.sum() / found.sum()).item(), iou)
