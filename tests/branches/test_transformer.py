import math

import pytest
import torch
from torch import nn

from densessl.branches.transformer import Attention, Block, Blocks, over_tokens

SYNC, BN, LN = (dict(type=name) for name in ("SyncBN", "BN", "LN"))


def tokens(images=3, count=5, dim=8, seed=0):
    return torch.randn(images, count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def randomised(module, seed=0):
    """All parameters are random numbers: neither zero biases nor unit gains hide a mistake."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 2)
    return module.double()


def loop_attention(x, weight, bias, heads, out_weight, out_bias):
    """Attention of one image's tokens (L, C), number by number."""
    count, dim = x.shape
    each = dim // heads
    rows = [weight @ token + bias for token in x]
    joined = torch.zeros(count, dim, dtype=x.dtype)
    for head in range(heads):
        own = slice(head * each, (head + 1) * each)
        q, k, v = ([row[part * dim :][own] for row in rows] for part in range(3))
        for i in range(count):
            scores = [math.exp(float(q[i] @ k[j]) / math.sqrt(each)) for j in range(count)]
            joined[i, own] = sum(score / sum(scores) * v[j] for j, score in enumerate(scores))
    return joined @ out_weight.T + out_bias


@torch.no_grad()
@pytest.mark.parametrize(("norm", "layer_scale"), [(LN, None), (BN, 0.3)], ids=["LN", "BN-layer-scale"])
def test_a_block_is_what_the_loops_say(norm, layer_scale):
    block = randomised(Block(8, heads=2, mlp_ratio=1.5, norm=norm, layer_scale=layer_scale))
    x = tokens()

    def normed(layer, values):
        if norm is BN:  # the statistics of all tokens of all images
            rows = torch.cat(list(values))
            mean, variance = rows.mean(0), rows.var(0, unbiased=False)
        else:
            mean, variance = values.mean(2, keepdim=True), values.var(2, unbiased=False, keepdim=True)
        return (values - mean) / (variance + layer.eps).sqrt() * layer.weight + layer.bias

    attention, mlp = block.attn, block.mlp
    weights = (attention.qkv.weight, attention.qkv.bias, 2, attention.proj.weight, attention.proj.bias)
    attended = torch.stack([loop_attention(image, *weights) for image in normed(block.norm1, x)])
    middle = x + attended * (1 if layer_scale is None else block.ls1.gamma)
    hidden = normed(block.norm2, middle) @ mlp.fc1.weight.T + mlp.fc1.bias
    assert hidden.shape[2] == 12
    hidden = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
    out = (hidden @ mlp.fc2.weight.T + mlp.fc2.bias) * (1 if layer_scale is None else block.ls2.gamma)
    torch.testing.assert_close(block(x), middle + out, rtol=1e-12, atol=1e-12)


def test_no_bias_of_queries_keys_and_values():
    assert Attention(8, 2, qkv_bias=False).qkv.bias is None and Attention(8, 2).qkv.bias is not None


def test_heads_divide_the_width():
    with pytest.raises(ValueError, match="dim=8 is not a multiple of heads=3"):
        Block(8, heads=3)


@pytest.mark.parametrize("name", ["BN", "SyncBN"])
def test_batch_norm_over_tokens_is_the_one_over_channels_first(name):
    """``BatchNorm1d`` on (N, C, L), as SIM's code permutes its tokens."""
    x = tokens(4, 7, 8)
    block = Block(8, heads=2, norm=dict(type=name)).double()
    reference = nn.BatchNorm1d(8).double()
    with torch.no_grad():
        reference.weight.copy_(torch.linspace(0.5, 2, 8))
        reference.bias.copy_(torch.linspace(-1, 1, 8))
    block.norm1.load_state_dict(reference.state_dict())
    torch.testing.assert_close(over_tokens(block.norm1, x), reference(x.mT).mT, rtol=1e-12, atol=1e-12)
    for key, value in reference.state_dict().items():
        torch.testing.assert_close(block.norm1.state_dict()[key], value, rtol=1e-12, atol=1e-12)


def test_layer_norm_sees_one_token():
    x = tokens()
    other = x.clone()
    other[0, 1:] = 0
    norm = Block(8, heads=2).double().norm1
    assert torch.equal(over_tokens(norm, x)[0, 0], over_tokens(norm, other)[0, 0])


def test_drop_path_leaves_out_parts_of_whole_images():
    block = randomised(Block(8, heads=2, drop_path=0.5)).train()
    nn.init.zeros_(block.mlp.fc2.weight), nn.init.zeros_(block.mlp.fc2.bias)
    x = tokens(64)
    added = block.attn(block.norm1(x))
    torch.manual_seed(0)
    ratio = (block(x) - x) / added
    kept = ratio.mean((1, 2)) > 1
    assert 16 < kept.sum() < 48  # 32 expected, 4 standard deviations
    torch.testing.assert_close(ratio[kept], torch.full_like(ratio[kept], 2))
    assert not ratio[~kept].any()
    torch.testing.assert_close(block.eval()(x), x + added)


@pytest.mark.parametrize("block", [dict(norm=SYNC), dict(norm=LN, drop_path=0.5, layer_scale=0.1)], ids=["BN", "LN"])
def test_recomputing_changes_no_bit(block):
    """Neither outputs, gradients, running statistics nor the random numbers of later layers."""
    plain = Blocks(2, dim=8, heads=2, **block)
    saving = Blocks(2, with_cp=True, dim=8, heads=2, **block)
    saving.load_state_dict(plain.state_dict())
    results = []
    for model in (plain, saving):
        x = tokens().float().requires_grad_()
        torch.manual_seed(3)
        out = model(x)
        out.square().sum().backward()
        results.append([out, x.grad, torch.rand(3), *(p.grad for p in model.parameters()), *model.buffers()])
    assert all(torch.equal(a, b) for a, b in zip(*results))


def test_recomputing_keeps_less():
    def kept(model):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            model(tokens(3, 50).float().requires_grad_())
        return sum(sizes)

    plain = Blocks(3, dim=8, heads=2)
    assert kept(Blocks(3, with_cp=True, dim=8, heads=2)) < kept(plain) / 5
