"""SIM against its restatement, its ablations against loops, and what it does not run twice."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from densessl.branches.positions import resized_table
from densessl.branches.transformer import Block
from densessl.geometry import affine
from tests.objectives.sim_oracle import (
    CROPS,
    Restated,
    crop_embedding,
    cut_batch,
    dense_loss,
    disturbed,
    fixed_table,
    plain_norm,
)
from tests.objectives.toy import VIT, take_step, total, toy_batch, toy_model

SIM = dict(type="SIM", dim=16, heads=2, mlp_ratio=2, projector_depth=1, decoder_depth=2)
SAME = dict(SIM, views=(0, 0))
PIXELS = dict(SAME, predict="pixels", score="masked", decoder_depth=1)
LN = dict(type="LN", eps=1e-6)
STOP = dict(kind="stop_gradient")
EMA = dict(kind="ema", momentum=0.9)

VARIANTS = {
    "official": (SIM, {}, EMA, {}),
    "layer norms": (dict(SIM, projector_norm=LN, decoder_norm=LN, norm_predictions=True), {}, EMA, {}),
    "no projector": (dict(SIM, projector_depth=0, negative_weight=0.0), {}, EMA, {}),
    "rectangular": (dict(SIM, negative_weight=0.7), {}, EMA, dict(sizes=((64, 96), (48, 32)), kept=7)),
    "trained patches": (
        dict(SIM, layer_scale=0.3),
        dict(freeze_patch_embed=False, layer_scale=0.5, class_token=False),
        EMA,
        dict(kept=1),
    ),
    "hidden cells": (dict(SAME, score="masked", negative_weight=0.7), {}, EMA, {}),
    "whole views": (dict(SIM, masked=False, global_weight=0.3), {}, STOP, {}),
    "same view": (dict(SAME, global_weight=0.5), {}, STOP, {}),
    "same whole view": (dict(SAME, masked=False), {}, STOP, {}),
}


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS.keys())
def test_sim_restated_in_float64(variant):
    """Loss and all gradients."""
    objective, backbone, target, cut = variant
    model = disturbed(toy_model([objective], target, VIT | backbone, torch.float64))
    batch = cut_batch(**cut)
    restated = Restated(model.named_parameters(), 2, target.get("momentum"))
    views, dim = objective.get("views", (0, 1)), objective["dim"]
    grids = [tuple(side // 16 for side in batch.views[view].shape[2:]) for view in views]
    keep = batch.draws[0]["keep"] if objective.get("masked", True) else None
    bn = "decoder_norm" not in objective
    leading = int(backbone.get("class_token", True))
    tables = [resized_table(model.online.backbone.pos_embed, grid, bool(leading))[0] for grid in grids]
    tokens = restated.branch("online", batch.views[0], keep, tables[0], bn)
    given = fixed_table(grids[0], dim).expand(len(tokens), -1, -1)
    given = given if keep is None else torch.stack([table[index] for table, index in zip(given, keep)])
    crops = zip(CROPS[views[0]], CROPS[views[1]])
    embedding = torch.stack([crop_embedding(*pair, grids, dim) for pair in crops])
    predicted = restated.predictions(tokens, given, embedding, bn)
    name = "online" if target is STOP else "target"
    asked = plain_norm(restated.branch(name, batch.views[views[1]], None, tables[1], bn)[:, leading:].detach())
    if objective.get("norm_predictions"):
        predicted = plain_norm(predicted)
    weight = objective.get("negative_weight", 0.02)
    counts = torch.ones(predicted.shape[:2], dtype=torch.bool)
    if objective.get("score") == "masked":
        counts = torch.tensor([[cell not in index for cell in range(counts.shape[1])] for index in keep.tolist()])
    expected = dense_loss(predicted[counts], asked[counts], weight)
    if "global_weight" in objective:
        expected = expected + objective["global_weight"] * dense_loss(predicted.mean(1), asked.mean(1), weight)

    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    wanted = torch.autograd.grad(expected, trained)
    found = total(model, batch)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=0)
    for one, other in zip(torch.autograd.grad(found, trained), wanted):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-11)


def test_pixels_are_maes_loss():
    """Of hidden patches only, each with its own mean and variance, in a loop over pixels."""
    model = disturbed(toy_model([PIXELS], EMA, VIT, torch.float64))
    seen = []
    decoder = model.objectives["sim"].decoder
    decoder.register_forward_hook(lambda _, args, out: out.retain_grad() or seen.append(out))
    batch = cut_batch(sizes=((64, 32), (64, 64)), kept=3)
    loss = total(model, batch)
    loss.backward()
    predicted, keep, view = seen[0], batch.draws[0]["keep"], batch.views[0].numpy()
    terms = []
    for image in range(3):
        for cell in range(8):
            if cell in keep[image]:
                assert not predicted.grad[image, cell].any()
                continue
            top, left = 16 * (cell // 2), 16 * (cell % 2)
            pixels = view[image, :, top : top + 16, left : left + 16].reshape(-1)
            pixels = (pixels - pixels.mean()) / math.sqrt(pixels.var(ddof=1) + 1e-6)
            terms.append(np.mean((predicted[image, cell].detach().numpy() - pixels) ** 2))
    assert len(terms) == 3 * 5
    assert loss.item() == pytest.approx(np.mean(terms), rel=1e-12)


def test_pixels_run_no_target():
    model = toy_model([PIXELS], EMA, VIT)
    passes = []
    model.target.backbone.register_forward_hook(lambda *_: passes.append(1))
    model.loss(cut_batch(kept=4)._replace(views=toy_batch(3).views))
    assert not passes


@pytest.mark.parametrize(("objective", "passes"), [(SAME, 2), (dict(SAME, masked=False), 1)], ids=["masked", "whole"])
def test_one_pass_is_shared_where_both_branches_see_the_same(objective, passes):
    """Under stop-gradient: a masked view is not what the target is asked for, a whole one is, and its statistics count
    once."""
    model = toy_model([objective], STOP, VIT, torch.float64)
    seen = []
    model.online.backbone.register_forward_hook(lambda _, args, out: seen.append(out[0].shape[1]))
    total(model, cut_batch()).backward()
    assert seen == ([7, 17] if passes == 2 else [17])
    counts = {
        name: int(buffer) for name, buffer in model.online.named_buffers() if name.endswith("num_batches_tracked")
    }
    assert counts and set(counts.values()) == {passes}


@pytest.mark.parametrize("backbone_too", [False, True])
def test_checkpointed_activations_change_no_bit(backbone_too):
    """Loss, gradients, running statistics, and the state after a step."""
    found = []
    for with_cp in (False, True):
        model = toy_model([dict(SIM, with_cp=with_cp)], EMA, dict(VIT, with_cp=with_cp and backbone_too))
        batch = cut_batch()._replace(views=toy_batch(3).views)
        recomputed = []
        model.objectives["sim"].decoder.blocks[0].register_forward_pre_hook(lambda *_, to=recomputed: to.append(1))
        loss = take_step(model, batch)
        assert len(recomputed) == 1 + with_cp
        gradients = {f"gradient of {name}": p.grad for name, p in model.named_parameters() if p.grad is not None}
        found.append({"loss": loss, **gradients, **model.state_dict()})
    assert found[0].keys() == found[1].keys()
    for name, value in found[0].items():
        assert torch.equal(value, found[1][name]), name


def test_the_order_of_visible_cells_does_not_matter():
    batch = cut_batch()
    order = torch.stack([torch.randperm(6, generator=torch.Generator().manual_seed(image)) for image in range(3)])
    assert (order != torch.arange(6)).any(1).all()
    shuffled = batch._replace(draws=[{"keep": batch.draws[0]["keep"].gather(1, order)}, {}])
    results = []
    for item in (batch, shuffled):
        model = disturbed(toy_model([SIM], EMA, VIT, torch.float64))
        loss = total(model, item)
        results.append([loss, *torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad])])
    for one, other in zip(*results):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_bf16_leaves_the_residual_stream_and_the_loss_in_fp32():
    model = toy_model([SIM], EMA, VIT)
    kinds, positions = [], []
    for name, module in model.named_modules():
        if isinstance(module, Block):
            module.register_forward_pre_hook(lambda _, args, name=name: kinds.append((name, args[0].dtype)))
    model.objectives["sim"].decoder.position.register_forward_pre_hook(lambda _, args: positions.append(args[0]))
    batch = cut_batch()._replace(views=toy_batch(3).views)
    with torch.autocast("cpu", torch.bfloat16):
        figures = model.loss(batch)
    assert len(kinds) == 2 * (2 + 1) + 2 and {kind for _, kind in kinds} == {torch.float32}, kinds
    model.loss(batch)
    assert positions[0].dtype == torch.float32 and torch.equal(*positions)
    assert all(value.dtype == torch.float32 for value in figures.values())


def test_figures_of_equal_targets_show_it():
    objective = toy_model([SIM], EMA, VIT).objectives["sim"]
    target = torch.linspace(-1, 2, 16).expand(2, 9, 16)
    figures = objective.compare(torch.randn(2, 9, 16), target, torch.ones(2, 9, dtype=torch.bool))
    assert figures["target_std"].item() == pytest.approx(0, abs=1e-6)
    assert figures["between_images"].item() == pytest.approx(1, abs=1e-6)
    normed = F.layer_norm(target, (16,))
    assert objective.compare(normed, target, torch.ones(2, 9, dtype=torch.bool))[
        "positive_cosine"
    ].item() == pytest.approx(1)


def test_turned_views_are_refused():
    batch = cut_batch()
    turned = batch.geometry[1].matrix.clone()
    turned[1, :, :2] @= torch.from_numpy(affine.rotate(3.0, (64, 64))[:, :2])
    batch = batch._replace(geometry=[batch.geometry[0], batch.geometry[1]._replace(matrix=turned)])
    with pytest.raises(ValueError, match=r"objectives\.sim: views \(0, 1\) are rotated .*remove `rotate`"):
        toy_model([SIM], EMA, VIT, torch.float64).loss(batch)


def test_a_view_without_mask_is_refused():
    batch = cut_batch()._replace(draws=[{}, {}])
    with pytest.raises(ValueError, match=r"masks view 0, whose draws have no 'keep': give views\[0\] a `mask`"):
        toy_model([SIM], EMA, VIT, torch.float64).loss(batch)


def test_patches_of_another_size_are_refused():
    model = toy_model([dict(SIM, patch_size=32, masked=False)], EMA, VIT, torch.float64)
    with pytest.raises(ValueError, match=r"objectives\.sim\.patch_size is 32, which makes 4 cells .* 17 tokens"):
        model.loss(cut_batch())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(predict="pixel"), r"objectives\.sim\.predict 'pixel' is unknown; did you mean pixels"),
        (dict(score="hidden"), r"objectives\.sim\.score 'hidden' is unknown"),
        (dict(score="masked"), r"score is 'masked', expected masked=True and views=\(v, v\)"),
        (dict(score="masked", views=(0, 0), masked=False), r"score is 'masked', expected masked=True"),
        (dict(dim=18), r"objectives\.sim\.dim is 18, expected a multiple of 4"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        toy_model([dict(SIM, **options)], EMA, VIT)
