"""Which query is given which patch, and what goes with it."""

import pytest
import torch
from torch import nn

from densessl.detectors.updetr import patches_an_image, query_groups, with_patches
from tests.detectors.small import ONE_STAGE, decoded, random_batch, small


@pytest.mark.parametrize(("queries", "patches"), [(100, 10), (300, 10), (12, 3)])
def test_groups_are_the_released_ones_where_those_divide(queries, patches):
    assert torch.equal(query_groups(queries, patches), torch.arange(patches).repeat_interleave(queries // patches))


@pytest.mark.parametrize(("queries", "patches"), [(20, 3), (100, 30), (7, 7), (300, 7)])
def test_groups_are_in_order_and_as_equal_as_can_be(queries, patches):
    groups = query_groups(queries, patches)
    sizes = torch.bincount(groups, minlength=patches)
    assert torch.equal(groups, groups.sort().values) and len(sizes) == patches
    assert sizes.max() - sizes.min() <= 1


def test_of_more_patches_than_queries_each_query_has_one_of_its_own():
    groups = query_groups(20, 30)
    assert len(groups.unique()) == 20 and groups.max() < 30


def test_patches_are_added_query_by_query():
    torch.manual_seed(0)
    images, queries, patches, width = 2, 7, 3, 4
    asked = {"query": torch.randn(images, queries, width), "query_pos": torch.randn(images, queries, 2)}
    vectors, groups = torch.randn(images, patches, width), query_groups(queries, patches)
    keep, order = torch.rand(images, queries) > 0.4, torch.randperm(queries)
    found = with_patches(asked, "query", vectors, groups, keep, order)
    for image in range(images):
        for query in range(queries):
            learnt = order[query]
            expected = asked["query"][image, learnt].clone()
            if keep[image, query]:
                expected += vectors[image, query * patches // queries]
            torch.testing.assert_close(found["query"][image, query], expected, rtol=0, atol=0)
            assert torch.equal(found["query_pos"][image, query], asked["query_pos"][image, learnt])
    assert torch.equal(with_patches(asked, "query", vectors, groups)["query_pos"], asked["query_pos"])


@pytest.mark.parametrize("family", ONE_STAGE)
def test_a_permuted_query_takes_along_all_that_is_its_own(family):
    """Without patches and in one group the decoder is the same in any order: positions, contents, reference points."""
    model = small(family, dict(type="UPDETR"))
    batch, order, none = random_batch([1, 1]), torch.randperm(20), torch.zeros(2, 20)
    model.pretext.draw = lambda *_: (none, None)
    straight = decoded(model, batch)
    model.pretext.draw = lambda *_: (none, order)
    torch.testing.assert_close(decoded(model, batch), straight[:, :, order], rtol=1e-4, atol=1e-4)
    assert (straight[-1] - straight[-1][:, order]).abs().max() > 1e-2


def test_draws_are_of_training_only():
    pretext = small("detr", dict(type="UPDETR", drop=0.25, shuffle=True)).pretext
    keep, order = pretext.draw(500, 20, torch.device("cpu"))
    assert abs(keep.float().mean().item() - 0.75) < 0.02
    assert len(keep.unique(dim=0)) > 400  # images are drawn each for themselves
    assert torch.equal(order.sort().values, torch.arange(20))
    assert pretext.eval().draw(2, 20, torch.device("cpu")) == (None, None)
    pretext.train().shuffle = False
    assert pretext.draw(2, 20, torch.device("cpu"))[1] is None


@pytest.mark.parametrize("counts", [[3, 2], [0, 0], [4, 0]])
def test_unequal_numbers_of_patches_are_refused(counts):
    owner = torch.repeat_interleave(torch.arange(2), torch.tensor(counts))
    with pytest.raises(ValueError, match=r"at_least"):
        patches_an_image(owner, 2)


@pytest.mark.parametrize("family", ["two_stage", "dino"])
def test_detectors_that_pick_their_queries_are_refused(family):
    with pytest.raises(ValueError, match="UPDETR"):
        small(family, dict(type="UPDETR"))


def test_the_target_of_reconstruction_gives_no_gradient():
    """Patches are reached as what queries are given, as in the released code, and only so."""
    model = small("detr", dict(type="UPDETR", drop=0.0))
    for reached in (True, False):
        batch = random_batch([2, 2])
        batch.regions.patches.requires_grad_()
        losses = model.loss(batch)
        reconstructions = sum(value for name, value in losses.items() if "loss_feature" in name)
        (gradient,) = torch.autograd.grad(reconstructions, batch.regions.patches)
        assert bool(gradient.any()) is reached
        nn.init.zeros_(model.pretext.patch_to_query.weight)
