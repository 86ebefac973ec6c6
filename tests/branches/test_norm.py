import pytest
import torch
from torch import nn

from densessl.branches.norm import build_norm
from densessl.branches.sync_bn import SplitBN, SyncBN

X = torch.randn(6, 4, 5, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "cfg, dims, expected",
    [
        ({"type": "BN", "eps": 0.1}, 1, nn.BatchNorm1d(4, eps=0.1)),
        ({"type": "BN", "momentum": 0.3}, 2, nn.BatchNorm2d(4, momentum=0.3)),
        ({"type": "SyncBN", "affine": False}, 2, SyncBN(4, affine=False)),
        ({"type": "SplitBN", "num_groups": 3}, 2, SplitBN(4, num_groups=3)),
        ({"type": "GN", "num_groups": 2}, 2, nn.GroupNorm(2, 4)),
        ({"type": "LN"}, 1, nn.LayerNorm(4)),
    ],
    ids=str,
)
def test_types_and_arguments(cfg, dims, expected):
    norm = build_norm(cfg, 4, dims)
    assert type(norm) is type(expected) and repr(norm) == repr(expected)
    x = X if dims == 2 else X[:, :, 0, 0]
    assert torch.equal(norm(x), expected(x))
    assert torch.equal(norm.eval()(x), expected.eval()(x))


def test_layer_norm_of_maps_normalises_the_channels_of_each_cell():
    norm = build_norm({"type": "LN"}, 4, dims=2)
    expected = nn.LayerNorm(4, eps=norm.eps)(X.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(norm(X), expected)
    assert list(norm.state_dict()) == ["weight", "bias"]


def test_none_and_requires_grad():
    assert build_norm(None, 4) is None
    cfg = {"type": "BN", "requires_grad": False}
    assert not any(p.requires_grad for p in build_norm(cfg, 4).parameters())
    assert cfg == {"type": "BN", "requires_grad": False}


@pytest.mark.parametrize("cfg", [{"type": "SyncBn"}, {"type": "SynBN"}])
def test_unknown_type_names_the_nearest(cfg):
    with pytest.raises(ValueError, match=rf"norm type '{cfg['type']}' is unknown; did you mean SyncBN"):
        build_norm(cfg, 4)
