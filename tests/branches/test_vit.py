"""ViT, and that it is timm's with other outputs. Parameters and positions are random numbers unless it says otherwise:
neither zero biases nor unit gains hide a mistake."""

import math

import pytest
import torch
from torch import nn

from densessl.branches.branch import build_branch
from densessl.branches.positions import resized_table
from densessl.branches.target import build_target
from densessl.branches.vit import ViT
from densessl.engine.lars import split_parameters

SMALL = dict(image_size=64, patch_size=16, dim=16, depth=3, heads=2, mlp_ratio=2)
# Of each image's 16 cells, those kept; not ascending.
KEEP = torch.tensor([[9, 2, 3, 14, 0], [1, 8, 15, 4, 5]])


def images(height=64, width=64, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, height, width, generator=generator, dtype=torch.float64).to(dtype)


def vit(dtype=torch.float64, **changes):
    model = ViT(**SMALL | changes)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in (*model.parameters(), model.pos_embed):
            value.copy_(torch.randn(value.shape, generator=generator) / 4)
    return model.to(dtype)


def timm_vit(ours, size=(64, 64), class_token=True, final_norm=False, qkv_bias=True, layer_scale=None):
    """timm's, with the weights of ours."""
    from timm.models.vision_transformer import VisionTransformer

    shape = dict(img_size=size, patch_size=16, embed_dim=16, depth=3, num_heads=2, mlp_ratio=2, init_values=layer_scale)
    parts = dict(class_token=class_token, qkv_bias=qkv_bias, final_norm=final_norm, num_classes=0)
    model = VisionTransformer(**shape, **parts, global_pool="", fc_norm=False).double()
    grid = (size[0] // 16, size[1] // 16)
    state = ours.state_dict() | {"pos_embed": resized_table(ours.pos_embed, grid, class_token)}
    assert sorted(model.state_dict()) == sorted(state)
    model.load_state_dict(state)
    return model


@pytest.mark.det
@pytest.mark.parametrize("final_norm", [False, True])
@pytest.mark.parametrize(
    "changes",
    [{}, dict(qkv_bias=False, layer_scale=0.1), dict(class_token=False)],
    ids=["plain", "options", "no class"],
)
def test_equals_timm(final_norm, changes):
    """The same keys, sequences, maps and gradients."""
    ours = vit(out_indices=(0, 2), final_norm=final_norm, **changes)
    theirs = timm_vit(ours, final_norm=final_norm, **changes)
    maps = theirs.forward_intermediates(images(), [0, 2], norm=True, intermediates_only=True)
    for found, expected in zip(ours(images()), maps, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    found, expected = ours(images(), tokens=True)[-1], theirs.forward_features(images())
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    found.square().sum().backward()
    expected.square().sum().backward()
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-9, atol=1e-10)


class Kept(nn.Module):
    """In place of timm's patch dropout: the class token and the cells of KEEP."""

    def forward(self, x):
        return torch.stack([torch.cat([own[:1], own[1:][keep]]) for own, keep in zip(x, KEEP)])


@pytest.mark.det
def test_kept_cells_equal_timm_on_those():
    ours = vit()
    theirs = timm_vit(ours)
    theirs.patch_drop = Kept()
    (found,) = ours(images(), keep=KEEP, tokens=True)
    assert found.shape == (2, 6, 16)
    torch.testing.assert_close(found, theirs.forward_features(images()), rtol=1e-10, atol=1e-10)


def test_what_is_left_out_is_not_seen():
    model, other = vit(), images()
    cells = other.unfold(2, 16, 16).unfold(3, 16, 16)
    for image, keep in enumerate(KEEP):
        for cell in set(range(16)) - set(keep.tolist()):
            cells[image, :, cell // 4, cell % 4] = 0
    assert not torch.equal(other, images())
    assert torch.equal(model(other, keep=KEEP, tokens=True)[0], model(images(), keep=KEEP, tokens=True)[0])


@pytest.mark.parametrize("class_token", [True, False])
def test_keeping_all_cells_is_no_mask(class_token):
    model = vit(class_token=class_token, out_indices=(0, 2))
    whole = model(images(), tokens=True)
    everything = torch.arange(16).expand(2, -1)
    for found, expected in zip(model(images(), keep=everything, tokens=True), whole, strict=True):
        assert torch.equal(found, expected)


def test_the_order_of_kept_cells_is_that_of_the_tokens():
    model = vit()
    (first,) = model(images(), keep=KEEP, tokens=True)
    (second,) = model(images(), keep=KEEP.flip(1), tokens=True)
    torch.testing.assert_close(second[:, 0], first[:, 0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(second[:, 1:].flip(1), first[:, 1:], rtol=1e-12, atol=1e-12)


def test_maps_are_row_major_cells():
    """Blocks that add nothing leave patch embedding and position: computed by loops, on a rectangular view."""
    model = vit(depth=1)
    for layer in (model.blocks[0].attn.proj, model.blocks[0].mlp.fc2):
        nn.init.zeros_(layer.weight), nn.init.zeros_(layer.bias)
    x = images(32, 80)
    table = resized_table(model.pos_embed, (2, 5), True)
    (found,) = model(x)
    (sequence,) = model(x, tokens=True)
    assert torch.equal(model.maps([sequence], x)[0], found)
    weight, bias = model.patch_embed.proj.weight, model.patch_embed.proj.bias
    for row in range(2):
        for column in range(5):
            patch = x[:, :, 16 * row : 16 * (row + 1), 16 * column : 16 * (column + 1)]
            expected = torch.einsum("nchw,dchw->nd", patch, weight) + bias + table[:, 1 + 5 * row + column]
            torch.testing.assert_close(found[:, :, row, column], expected, rtol=1e-12, atol=1e-12)


def test_positions_are_fixed_waves_of_rows_then_columns():
    """As SIM's released table; the class token's are zero."""
    model = ViT(**SMALL)
    assert "pos_embed" in model.state_dict() and "pos_embed" not in dict(model.named_parameters())
    table = model.pos_embed[0].tolist()
    assert table[0] == [0.0] * 16
    for row in range(4):
        for column in range(4):
            angles = [[at / 10000 ** (k / 4) for k in range(4)] for at in (row, column)]
            expected = [wave(a) for own in angles for wave in (math.sin, math.cos) for a in own]
            assert table[1 + 4 * row + column] == pytest.approx(expected, abs=1e-6)


@pytest.mark.det
@pytest.mark.parametrize("grid", [(6, 6), (3, 5), (2, 8), (4, 4)])
@pytest.mark.parametrize("class_token", [False, True])
def test_resized_tables_are_those_of_timm_without_antialiasing(grid, class_token):
    from timm.layers import resample_abs_pos_embed

    table = vit(torch.float32, class_token=class_token).pos_embed
    options = dict(old_size=[4, 4], num_prefix_tokens=int(class_token), antialias=False)
    assert torch.equal(resized_table(table, grid, class_token), resample_abs_pos_embed(table, list(grid), **options))


@pytest.mark.det
def test_equals_timm_at_other_sizes():
    ours = vit()
    (expected,) = timm_vit(ours, (96, 48)).forward_intermediates(images(96, 48), [2], intermediates_only=True)
    (found,) = ours(images(96, 48))
    assert found.shape == (2, 16, 6, 3)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_outputs_before_the_last_block_cost_no_more():
    model = vit(out_indices=(0, 1))
    full = vit(out_indices=(0, 1, 2))
    seen = []
    model.blocks[2].register_forward_hook(lambda *_: seen.append(1))
    for found, expected in zip(model(images()), full(images())):
        assert torch.equal(found, expected)
    assert not seen and model.out_channels == (16, 16) and model.out_strides == (16, 16)


def test_the_class_token_can_be_left_out_for_once():
    model = vit()
    without = vit(class_token=False)
    without.load_state_dict(
        {k: v[:, 1:] if k == "pos_embed" else v for k, v in model.state_dict().items() if k != "cls_token"}
    )
    (found,) = model(images(), class_token=False)
    assert torch.equal(found, without(images())[0]) and not torch.equal(found, model(images())[0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ViT(image_size=65), "image_size=65 and dim=768, expected a multiple of patch_size=16 and of 4"),
        (lambda: ViT(dim=30, heads=2), "image_size=224 and dim=30"),
        (lambda: ViT(out_indices=(11, 3)), r"out_indices=\(11, 3\), expected ascending numbers from 0 to 11"),
        (lambda: ViT(out_indices=(12,)), r"out_indices=\(12,\)"),
        (lambda: vit()(images(64, 72)), "views of 72x64 pixels, expected multiples of patch_size=16"),
        (lambda: vit()(images(), keep=KEEP), "keep is given, tokens is False"),
    ],
)
def test_errors_say_what_was_expected(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_drop_path_grows_with_depth():
    model = vit(drop_path=0.4)
    assert [block.drop_path.p for block in model.blocks] == pytest.approx([0, 0.2, 0.4])
    assert not torch.equal(model(images())[0], vit()(images())[0])
    assert torch.equal(model.eval()(images())[0], vit()(images())[0])


def test_recomputing_changes_no_bit():
    results = []
    for with_cp in (False, True):
        model = vit(torch.float32, with_cp=with_cp, drop_path=0.5, out_indices=(0, 2))
        torch.manual_seed(1)
        outputs = model(images(dtype=torch.float32), keep=KEEP, tokens=True)
        sum(item.square().sum() for item in outputs).backward()
        results.append([*outputs, *(parameter.grad for parameter in model.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_a_frozen_patch_embedding_is_not_trained_and_still_followed():
    branch = build_branch(dict(backbone=dict(type="ViT", freeze_patch_embed=True, **SMALL)))
    frozen = {"backbone.patch_embed.proj.weight", "backbone.patch_embed.proj.bias"}
    assert {name for name, parameter in branch.named_parameters() if not parameter.requires_grad} == frozen
    trained = {id(parameter) for group in split_parameters(branch, 0.05) for parameter in group["params"]}
    assert trained == {id(value) for name, value in branch.named_parameters() if name not in frozen}
    branch.backbone(images(dtype=torch.float32))[0].sum().backward()
    assert branch.backbone.patch_embed.proj.weight.grad is None
    target, before = build_target(branch, momentum=0.75), branch.backbone.patch_embed.proj.bias.clone()
    nn.init.ones_(branch.backbone.patch_embed.proj.bias)
    target.before_forward(branch, 0)
    torch.testing.assert_close(target.branch(branch).backbone.patch_embed.proj.bias, 0.75 * before + 0.25)


def test_layers_for_rates_that_decay_with_depth():
    model = vit(final_norm=True)
    layers = {name: model.layer_of(name) for name in model.state_dict()}
    assert {
        layers[name] for name in ("cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias")
    } == {0}
    assert layers["blocks.0.norm1.weight"] == 1 and layers["blocks.2.mlp.fc2.bias"] == 3 and layers["norm.bias"] == 4
    assert set(layers.values()) == {0, 1, 2, 3, 4}


def test_bf16_is_close():
    model, x = vit(torch.float32), images(dtype=torch.float32)
    (exact,) = model(x, tokens=True)
    with torch.autocast("cpu", torch.bfloat16):
        (rough,) = model(x, tokens=True)
    assert rough.dtype == torch.float32
    error = (rough - exact).norm() / exact.norm()
    assert 1e-5 < error < 0.02


def test_a_new_one_is_initialised_as_sim_is():
    """Xavier-uniform linear layers and patch embedding, no biases, a small class token."""
    torch.manual_seed(0)
    model = ViT(**SMALL | dict(dim=64))
    for name, value in model.named_parameters():
        if name.endswith("bias"):
            # The patch embedding is a convolution: its bias is PyTorch's.
            assert (name == "patch_embed.proj.bias") == bool(value.any()), name
        elif name == "cls_token":
            assert 0.01 < value.std() < 0.03
        elif value.ndim > 1:
            rows, columns = value.flatten(1).shape
            bound = math.sqrt(6 / (rows + columns))
            assert 0.98 * bound < value.abs().max() <= bound, name
            assert value.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05), name
