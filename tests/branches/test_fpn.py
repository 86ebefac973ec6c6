"""The pyramid against MMDetection's, bit for bit, against loops in float64, and as a neck of the model."""

import pytest
import torch

from densessl.branches import FPN
from densessl.model import TwoBranch

CHANNELS = [4, 6, 5, 8]
EXTRAS = [(False, False), ("on_input", False), ("on_output", False), ("on_output", True)]
NORMS = {"plain": None, "bn": dict(type="BN"), "gn": dict(type="GN", num_groups=2)}


def stages(height: int, width: int, dtype=torch.float32) -> list[torch.Tensor]:
    """Maps of strides 4 to 32 of an image of the given size, halved and rounded up as a ResNet's are."""
    generator = torch.Generator().manual_seed(0)
    sizes = [(-(-height // s), -(-width // s)) for s in (4, 8, 16, 32)]
    return [torch.randn(2, c, *size, generator=generator, dtype=dtype) for c, size in zip(CHANNELS, sizes)]


@pytest.mark.det
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("extra", "relu"), EXTRAS)
@pytest.mark.parametrize("start", [0, 1])
def test_mmdetections_pyramid_is_the_same_bit_for_bit(start, extra, relu, norm):
    from mmdet.models.necks import FPN as Reference

    settings = dict(start_level=start, add_extra_convs=extra, relu_before_extra_convs=relu, norm_cfg=NORMS[norm])
    ours, theirs = FPN(CHANNELS, 10, num_outs=6, **settings), Reference(CHANNELS, 10, num_outs=6, **settings)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.copy_(torch.randn_like(parameter))
    theirs.load_state_dict(ours.state_dict())
    for size in ((64, 64), (100, 52), (33, 75)):
        outs, expected = ours(stages(*size)), theirs(stages(*size))
        assert len(outs) == len(expected) == ours.num_outs == 6
        assert all(torch.equal(a, b) for a, b in zip(outs, expected))


@pytest.mark.det
def test_it_starts_as_mmdetections_does():
    from mmdet.models.necks import FPN as Reference

    reference = Reference(CHANNELS, 64, num_outs=4)
    reference.init_weights()
    for (name, ours), theirs in zip(FPN(CHANNELS, 64).named_parameters(), reference.parameters()):
        # Uniform: the bound tells the distribution; of some hundred draws the largest comes within a tenth of it.
        assert ours.abs().max().item() == pytest.approx(theirs.abs().max().item(), rel=0.1), name


def test_coarse_cells_are_added_to_the_cells_they_lie_under():
    """Nearest: cell y of h reads floor(y * h' / h) of the h' coarser ones."""
    neck = FPN(CHANNELS[:2], 3).double()
    fine, coarse = stages(52, 36, torch.float64)[:2]
    blocks = zip(neck.lateral_convs, (fine, coarse))
    lateral = [
        torch.einsum("oc,nchw->nohw", block.conv.weight[:, :, 0, 0], x) + block.conv.bias[:, None, None]
        for block, x in blocks
    ]
    (height, width), (h, w) = fine.shape[2:], coarse.shape[2:]
    rows, columns = (torch.tensor([i * b // a for i in range(a)]) for a, b in ((height, h), (width, w)))
    total = lateral[0] + lateral[1][:, :, rows][:, :, :, columns]
    for out, convolution, item in zip(neck((fine, coarse)), neck.fpn_convs, (total, lateral[1])):
        padded = torch.nn.functional.pad(item, (1, 1, 1, 1)).unfold(2, 3, 1).unfold(3, 3, 1)
        expected = torch.einsum("nchwyx,ocyx->nohw", padded, convolution.conv.weight)
        torch.testing.assert_close(out, expected + convolution.conv.bias[:, None, None], rtol=1e-12, atol=1e-12)


def test_the_model_fills_in_the_channels_of_its_backbone():
    online = dict(
        backbone=dict(type="ResNet", depth=18, width=8, out_indices=(0, 1, 2, 3)),
        neck=dict(type="FPN", out_channels=6, start_level=1),
    )
    model = TwoBranch(online, [dict(type="PixPro", hidden=8, dim=4, level="neck.1")])
    assert [block.conv.in_channels for block in model.online.neck.lateral_convs] == [16, 32, 64]
    features = model.online(torch.randn(2, 3, 64, 64), neck=True)
    assert [tuple(item.shape) for item in features.neck] == [(2, 6, 8, 8), (2, 6, 4, 4), (2, 6, 2, 2)]
    assert torch.equal(features["neck.1"], features.neck[1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(start_level=4), r"neck\.start_level is 4, expected 0 to 3"),
        (dict(num_outs=3), r"neck\.num_outs is 3, expected at least 4"),
        (dict(add_extra_convs="on_lateral"), r"neck\.add_extra_convs is 'on_lateral', expected False"),
    ],
)
def test_errors_name_the_key(settings, message):
    with pytest.raises(ValueError, match=message):
        FPN(CHANNELS, **settings)


def test_a_wrong_number_of_maps_is_named():
    with pytest.raises(ValueError, match=r"found 3 maps, expected the 4 of neck\.in_channels"):
        FPN(CHANNELS)(stages(64, 64)[:3])
