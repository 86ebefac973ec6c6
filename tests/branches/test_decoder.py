"""The decoder against interpolation written out, and as a neck of the model."""

import numpy as np
import pytest
import torch

from densessl.branches.decoder import SumDecoder
from densessl.model import TwoBranch


def enlarged(values: np.ndarray, size: int) -> np.ndarray:
    """Linear interpolation between cell centres along the last axis, the ends held."""
    centres = (np.arange(size) + 0.5) * values.shape[-1] / size - 0.5
    return np.apply_along_axis(lambda row: np.interp(centres, np.arange(len(row)), row), -1, values)


def test_stages_are_projected_enlarged_and_summed():
    torch.manual_seed(0)
    decoder = SumDecoder((3, 5, 2), 4).double()
    # Strides 4, 8, 16 of an image of 52 x 36 pixels: sizes that do not halve exactly.
    levels = [torch.randn(2, c, h, w, dtype=torch.float64) for c, h, w in ((3, 13, 9), (5, 7, 5), (2, 4, 3))]
    (out,) = decoder(levels)
    projected = [
        np.einsum("oc,nchw->nohw", conv.weight[:, :, 0, 0].detach().numpy(), level.numpy())
        + conv.bias.detach().numpy()[:, None, None]
        for conv, level in zip(decoder.lateral, levels)
    ]
    total = projected[2]
    for level in projected[1::-1]:
        high, wide = level.shape[2:]
        total = level + enlarged(enlarged(total, wide).swapaxes(2, 3), high).swapaxes(2, 3)
    np.testing.assert_allclose(out.detach().numpy(), total, rtol=1e-12, atol=1e-12)


def test_all_stages_get_a_gradient():
    decoder = SumDecoder((3, 5), 4)
    decoder([torch.randn(1, 3, 8, 8), torch.randn(1, 5, 4, 4)])[0].square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in decoder.parameters())


def test_the_model_fills_in_the_channels_of_its_backbone():
    online = dict(
        backbone=dict(type="ResNet", depth=18, width=8, out_indices=(0, 2, 3)),
        neck=dict(type="SumDecoder", out_channels=6),
    )
    model = TwoBranch(online, [dict(type="PixPro", hidden=8, dim=4, level="neck.0")])
    assert [conv.in_channels for conv in model.online.neck.lateral] == [8, 32, 64]
    assert model.online(torch.randn(2, 3, 64, 64), neck=True)["neck.0"].shape == (2, 6, 16, 16)


def test_a_wrong_number_of_maps_is_named():
    with pytest.raises(ValueError, match=r"found 1 maps, expected the 2 of neck\.in_channels"):
        SumDecoder((3, 5))([torch.zeros(1, 3, 4, 4)])
