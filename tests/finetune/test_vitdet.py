import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from densessl.finetune.vitdet import LN2d, RelativeAttention, SimpleFPN, ViTDet
from tests.weights.vits import checkpoint, stirred, vitdet


def slow_attention(x, weights, heads):
    """One map (H, W, C), cell by cell, in float64: the paper's equations."""
    height, width, channels = x.shape
    size = channels // heads
    qkv = x @ weights["qkv.weight"].T + weights["qkv.bias"]
    tables = [resampled(weights[f"rel_pos_{name}"], 2 * n - 1) for name, n in (("h", height), ("w", width))]
    out = np.zeros_like(x)
    for head in range(heads):
        q, k, v = (qkv[..., i * channels + head * size :][..., :size] for i in range(3))
        for y in range(height):
            for xx in range(width):
                logits = np.empty((height, width))
                for ky in range(height):
                    for kx in range(width):
                        rows = tables[0][y - ky + height - 1] + tables[1][xx - kx + width - 1]
                        logits[ky, kx] = q[y, xx] @ k[ky, kx] / math.sqrt(size) + q[y, xx] @ rows
                shares = np.exp(logits - logits.max())
                out[y, xx, head * size :][:size] = np.tensordot(shares / shares.sum(), v, 2)
    return out @ weights["proj.weight"].T + weights["proj.bias"]


def resampled(table, length):
    """Linear, between the centres of equal cells."""
    centres = (np.arange(length) + 0.5) * len(table) / length - 0.5
    return np.stack([np.interp(centres, np.arange(len(table)), column) for column in table.T], 1)


def attention(side, window=None, dim=8, heads=2):
    torch.manual_seed(0)
    module = RelativeAttention(dim, heads, True, side, window).double()
    for table in (module.rel_pos_h, module.rel_pos_w):
        assert not table.any()
        torch.nn.init.normal_(table)
    weights = {name: value.detach().numpy() for name, value in module.named_parameters()}
    return module, weights, lambda x: slow_attention(x, weights, heads)


@pytest.mark.parametrize("grid", [(4, 4), (3, 5), (6, 6)], ids=str)
def test_all_cells_see_all_as_in_the_equations(grid):
    module, _, slow = attention(side=4)  # the tables are resampled for the other grids
    x = torch.randn(2, *grid, 8, dtype=torch.float64)
    expected = np.stack([slow(item) for item in x.numpy()])
    np.testing.assert_allclose(module(x).detach().numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("grid", [(4, 6), (5, 3)], ids=str)
def test_windows_see_themselves_and_the_zeros_beyond_the_edge(grid):
    module, _, slow = attention(side=3, window=3)
    x = torch.randn(2, *grid, 8, dtype=torch.float64)
    found = module(x).detach().numpy()
    assert found.shape == x.shape
    for image, result in zip(x.numpy(), found):
        for y in range(0, grid[0], 3):
            for left in range(0, grid[1], 3):
                window = np.zeros((3, 3, 8))
                inside = image[y : y + 3, left : left + 3]
                window[: inside.shape[0], : inside.shape[1]] = inside
                expected = slow(window)[: inside.shape[0], : inside.shape[1]]
                np.testing.assert_allclose(result[y : y + 3, left : left + 3], expected, atol=1e-12)


def test_one_window_is_all_there_is():
    windowed, _, _ = attention(side=5, window=5)
    free = RelativeAttention(8, 2, True, 5).double()
    free.load_state_dict(windowed.state_dict())
    x = torch.randn(2, 5, 5, 8, dtype=torch.float64)
    assert torch.equal(windowed(x), free(x))


@pytest.mark.parametrize("config", [{}, {"layer_scale": 0.5, "qkv_bias": False}], ids=str)
def test_at_one_window_it_is_the_pretrained_vit_without_its_class_token(config):
    _, vit = checkpoint(**config)
    backbone = vitdet(**config).eval()
    result = backbone.load_state_dict(vit.state_dict(), strict=False)
    assert result.unexpected_keys == ["cls_token"]
    assert result.missing_keys == [f"blocks.{i}.attn.rel_pos_{axis}" for i in range(3) for axis in "hw"]
    shapes = [tuple(backbone.get_parameter(name).shape) for name in result.missing_keys[::2]]
    assert shapes == [(7, 16), (15, 16), (7, 16)]  # of 4 cells in windows, of 128 / 16 in the block without
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        (ours,), (theirs,) = backbone(images), vit(images, class_token=False)
        assert torch.equal(ours, theirs)
        larger = torch.randn(1, 3, 128, 96)  # two windows: another function than the ViT's, on the same positions
        (ours,), (theirs,) = backbone(larger), vit(larger, class_token=False)
    assert ours.shape == theirs.shape == (1, 32, 8, 6)
    assert not torch.allclose(ours, theirs, atol=1e-3)
    backbone = vitdet(window_block_indexes=(), **config).eval()
    backbone.load_state_dict(vit.state_dict(), strict=False)
    with torch.no_grad():
        assert torch.equal(backbone(larger)[0], vit(larger, class_token=False)[0])


def test_images_of_any_size_are_padded_at_the_bottom_and_the_right():
    backbone = stirred(vitdet())
    images = torch.randn(1, 3, 70, 95)
    padded = torch.zeros(1, 3, 80, 96)
    padded[..., :70, :95] = images
    with torch.no_grad():
        (found,), (expected,) = backbone(images), backbone(padded)
    assert found.shape == (1, 32, 5, 6)
    assert torch.equal(found, expected)


def test_every_tensor_but_the_class_tokens_row_is_trained_and_recomputing_changes_nothing():
    backbone = stirred(vitdet()).train()
    images = torch.randn(2, 3, 80, 64)
    calls, gradients = [], []
    backbone.blocks[1].register_forward_pre_hook(lambda *_: calls.append(backbone.with_cp))
    for backbone.with_cp in (False, True):
        backbone.zero_grad()
        backbone(images)[0].square().mean().backward()
        gradients.append({name: parameter.grad.clone() for name, parameter in backbone.named_parameters()})
    assert all(torch.equal(value, gradients[1][name]) for name, value in gradients[0].items())
    assert calls == [False, True, True]
    assert all(value.any() for value in gradients[0].values())
    positions = gradients[0]["pos_embed"]
    assert not positions[:, 0].any() and positions[:, 1:].any(-1).all()


def test_drop_path_grows_with_depth_and_skips_images():
    backbone = vitdet(drop_path_rate=1.0)
    assert [block.drop_path.p for block in backbone.blocks] == [0.0, 0.5, 1.0]
    backbone.train()
    x = torch.randn(3, 4, 4, 32)
    assert torch.equal(backbone.blocks[2](x), x)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"window_block_indexes": (0, 3)}, r"window_block_indexes=\(0, 3\), expected numbers below 3"),
        ({"pretrain_img_size": 60}, "pretrain_img_size=60, expected a multiple of 16"),
        ({"num_heads": 5}, "dim=32 is not a multiple of heads=5"),
    ],
)
def test_arguments_out_of_range_are_named(config, message):
    with pytest.raises(ValueError, match=message):
        vitdet(**config)


def test_layers_count_from_the_patches():
    backbone = vitdet()
    layers = {name: backbone.layer_of(name) for name, _ in backbone.named_parameters()}
    assert layers["pos_embed"] == layers["patch_embed.proj.weight"] == 0
    assert layers["blocks.0.attn.rel_pos_h"] == 1 and layers["blocks.2.mlp.fc2.bias"] == 3


@pytest.mark.det
def test_the_pyramid_is_made_of_one_map():
    torch.manual_seed(0)
    neck = stirred(SimpleFPN(16, out_channels=8))
    names = {name.rpartition(".")[0] for name in neck.state_dict()}
    assert names == {"fpn1.0", "fpn1.1", "fpn1.3", "fpn2.0"} | {
        f"{kind}_convs.{i}.{layer}" for kind in ("lateral", "fpn") for i in range(4) for layer in ("conv", "norm_layer")
    }
    x = torch.randn(2, 16, 6, 10)
    with torch.no_grad():
        outs = neck((x,))
        assert [tuple(out.shape[2:]) for out in outs] == [(24, 40), (12, 20), (6, 10), (3, 5), (2, 3)]
        assert torch.equal(outs[4], outs[3][..., ::2, ::2])

        def normed(maps, name):
            mean, variance = maps.mean(1, keepdim=True), maps.var(1, keepdim=True, correction=0)
            weight, bias = (neck.state_dict()[f"{name}.{kind}"][:, None, None] for kind in ("weight", "bias"))
            return (maps - mean) / (variance + 1e-6).sqrt() * weight + bias

        def enlarged(maps, name):  # each cell becomes 2x2 of its own
            weight, bias = (neck.state_dict()[f"{name}.{kind}"] for kind in ("weight", "bias"))
            cells = torch.einsum("nchw,cdab->ndhawb", maps, weight).flatten(4, 5).flatten(2, 3)
            return cells + bias[:, None, None]

        levels = [
            enlarged(F.gelu(normed(enlarged(x, "fpn1.0"), "fpn1.1")), "fpn1.3"),
            enlarged(x, "fpn2.0"),
            x,
            F.max_pool2d(x, 2),
        ]
        for i, level in enumerate(levels):
            level = torch.einsum("nchw,dc->ndhw", level, neck.lateral_convs[i].conv.weight[..., 0, 0])
            level = normed(level, f"lateral_convs.{i}.norm_layer")
            level = F.conv2d(level, neck.fpn_convs[i].conv.weight, padding=1)
            torch.testing.assert_close(outs[i], normed(level, f"fpn_convs.{i}.norm_layer"), atol=1e-4, rtol=1e-4)


@pytest.mark.det
def test_a_pyramid_that_starts_later_has_only_what_it_uses():
    neck = SimpleFPN(16, out_channels=8, start_level=2, num_outs=3)
    assert not any(name.startswith(("fpn1", "fpn2")) for name in neck.state_dict())
    assert len(neck.lateral_convs) == len(neck.fpn_convs) == 2
    assert [out.shape[2] for out in neck((torch.randn(1, 16, 8, 8),))] == [8, 4, 2]
    for wrong in (dict(num_outs=3), dict(start_level=4), dict(backbone_channel=18)):
        with pytest.raises(ValueError, match="SimpleFPN: backbone_channel="):
            SimpleFPN(**{"backbone_channel": 16, **wrong})


@pytest.mark.det
def test_stock_configs_know_the_parts_by_name():
    from mmcv.cnn import build_norm_layer
    from mmdet.registry import MODELS
    from mmengine.registry import DefaultScope

    with DefaultScope.overwrite_default_scope("mmdet"):
        small = dict(embed_dim=8, depth=1, num_heads=1, window_block_indexes=())
        backbone = MODELS.build(dict(type="densessl.ViTDet", **small))
        neck = MODELS.build(dict(type="densessl.SimpleFPN", backbone_channel=8))
        _, norm = build_norm_layer(dict(type="densessl.LN2d", eps=1e-6), 8)
    assert isinstance(backbone, ViTDet) and isinstance(neck, SimpleFPN) and isinstance(norm, LN2d)
    assert norm.eps == neck.fpn1[1].eps == backbone.blocks[0].norm1.eps == 1e-6
    x = torch.randn(2, 8, 3, 3)
    torch.testing.assert_close(norm(x), F.layer_norm(x.movedim(1, 3), (8,), eps=1e-6).movedim(3, 1))
