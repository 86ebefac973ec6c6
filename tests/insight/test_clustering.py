"""Matching and figures against all permutations, counted pixel by pixel."""

from itertools import permutations

import numpy as np
import pytest
import torch

from densessl.insight.clustering import confusion, match, over_ranks, scores
from tests.distributed import run_pair


def by_hand(labels, clusters, classes, named):
    """IoU of each class and pixel accuracy, from sets of pixels."""
    known = [i for i, label in enumerate(labels) if 0 <= label < classes]
    iou = []
    for c in range(classes):
        true = {i for i in known if labels[i] == c}
        found = {i for i in known if named[clusters[i]] == c}
        iou.append(len(true & found) / len(true | found) if true | found else np.nan)
    return iou, sum(labels[i] == named[clusters[i]] for i in known) / len(known)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_the_best_of_all_permutations_is_found(classes, seed):
    rng = np.random.default_rng(seed)
    labels = rng.choice([*range(classes), 255, -1], 60)
    if seed % 2:
        labels[labels == 1] = 0  # an absent class
    clusters = np.where(
        rng.random(60) < 0.5, rng.permutation(classes)[labels % classes], rng.integers(classes, size=60)
    )
    counts = confusion(torch.from_numpy(labels), torch.from_numpy(clusters), classes)
    named = match(counts).tolist()
    best = max(by_hand(labels, clusters, classes, other)[1] for other in permutations(range(classes)))
    iou, accuracy = by_hand(labels, clusters, classes, named)
    assert sorted(named) == list(range(classes)) and accuracy == pytest.approx(best)
    found = scores(counts, torch.tensor(named))
    assert found.accuracy == pytest.approx(accuracy) and found.miou == pytest.approx(np.nanmean(iou))
    np.testing.assert_allclose(found.iou, iou)


def test_counts_are_by_class_and_cluster_and_leave_out_what_has_no_class():
    labels = torch.tensor([[0, 0, 2], [255, -1, 1]])
    clusters = torch.tensor([[1, 1, 0], [0, 2, 2]])
    assert confusion(labels, clusters, 3).tolist() == [[0, 2, 0], [0, 0, 1], [1, 0, 0]]
    assert confusion(labels.byte(), clusters, 3)[1].tolist() == [0, 0, 1]  # 255 as PNGs have it


def test_absent_classes_count_only_where_their_cluster_has_pixels():
    labels = torch.tensor([0, 0, 0, 0])
    assert scores(confusion(labels, labels, 3), torch.arange(3)).miou == 1
    found = scores(confusion(labels, torch.tensor([0, 0, 0, 1]), 3), torch.arange(3))
    assert found.iou[:2].tolist() == [0.75, 0] and found.iou[2].isnan() and found.miou == 0.375


def test_a_permutation_of_the_labels_is_perfect():
    labels = torch.randint(6, (4, 9, 9), generator=torch.Generator().manual_seed(0))
    order = torch.tensor([3, 5, 0, 1, 4, 2])
    counts = confusion(labels, order[labels], 6)
    assert match(counts)[order].tolist() == list(range(6))
    found = scores(counts, match(counts))
    assert found.miou == found.accuracy == 1


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"clusters have shape \(1, 2\), labels \(2, 1\)"):
        confusion(torch.zeros(2, 1), torch.zeros(1, 2), 3)


def summed(counts):
    mine = counts * (torch.distributed.get_rank() + 1)
    return over_ranks(mine), mine


def test_counts_of_ranks_are_summed_without_changing_theirs():
    counts = torch.arange(4).unflatten(0, (2, 2))
    for rank, (total, mine) in enumerate(run_pair(summed, counts)):
        assert torch.equal(total, 3 * counts) and torch.equal(mine, (rank + 1) * counts)
    assert torch.equal(over_ranks(counts), counts)
