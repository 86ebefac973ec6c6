import pytest
import torch
from torch import nn

from densessl.branches.backbone import build_backbone
from densessl.branches.resnet import ResNet
from densessl.registry import MODELS

IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))

TINY_SWIN = {"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1), "window_size": 2}


@MODELS.register_module()
class SilentBackbone(nn.Module):
    """Says nothing about its maps; notices whether it is probed politely."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 4, stride=4), nn.BatchNorm2d(6))
        self.top = nn.Sequential(nn.Conv2d(6, 10, 2, stride=2), nn.BatchNorm2d(10))
        self.stem.eval()

    def forward(self, x):
        x = self.stem(x)
        return x, self.top(x)


@pytest.mark.parametrize(
    "cfg",
    [
        {"type": "ResNet", "depth": 18, "width": 8, "out_indices": (1, 3)},
        {"type": "SilentBackbone"},
        pytest.param({"type": "timm.resnet18", "out_indices": (2, 4)}, marks=pytest.mark.det),
        pytest.param({"type": "timm.convnext_atto", "dims": (4, 8, 16, 32), "depths": (1,) * 4}, marks=pytest.mark.det),
        pytest.param({"type": "timm.swin_tiny_patch4_window7_224", "img_size": 64, **TINY_SWIN}, marks=pytest.mark.det),
        pytest.param(
            {"type": "mmdet.ResNet", "depth": 18, "base_channels": 8, "stem_channels": 8, "frozen_stages": 0},
            marks=pytest.mark.det,
        ),
        pytest.param(
            {
                "type": "mmdet.SwinTransformer",
                **{k.replace("embed_dim", "embed_dims"): v for k, v in TINY_SWIN.items()},
            },
            marks=pytest.mark.det,
        ),
    ],
    ids=lambda cfg: cfg["type"],
)
def test_backbones_state_their_maps(cfg):
    unchanged = repr(cfg)
    backbone = build_backbone(cfg)
    assert repr(cfg) == unchanged
    maps = backbone(IMAGES)
    assert len(maps) == len(backbone.out_channels) == len(backbone.out_strides)
    for found, channels, stride in zip(maps, backbone.out_channels, backbone.out_strides):
        assert found.shape == (2, channels, 64 // stride, 64 // stride)
    sum(found.sum() for found in maps).backward()


def test_probe_moves_no_statistics_and_no_modes():
    backbone = build_backbone({"type": "SilentBackbone"})
    assert (backbone.out_channels, backbone.out_strides) == ((6, 10), (4, 8))
    assert [backbone.training, backbone.stem.training, backbone.stem[1].training] == [True, False, False]
    assert backbone.top[1].training
    for norm in (backbone.stem[1], backbone.top[1]):
        assert norm.num_batches_tracked == 0
        assert not norm.running_mean.any()
    assert all(p.grad is None for p in backbone.parameters())


def test_own_backbone_passes_its_arguments():
    backbone = build_backbone({"type": "ResNet", "depth": 18, "width": 8})
    assert type(backbone) is ResNet
    assert backbone.out_channels == (64,)


@pytest.mark.det
def test_timm_keys_and_maps_are_timms():
    import timm

    backbone = build_backbone({"type": "timm.resnet18", "out_indices": (4,)}).eval()
    reference = timm.create_model("resnet18", num_classes=0).eval()
    assert list(backbone.state_dict()) == list(reference.state_dict())
    reference.load_state_dict(backbone.state_dict())
    assert torch.equal(backbone(IMAGES)[0], reference.forward_features(IMAGES))


@pytest.mark.det
def test_timm_maps_have_channels_second():
    import timm

    arguments = {"img_size": 64, **TINY_SWIN}
    backbone = build_backbone({"type": "timm.swin_tiny_patch4_window7_224", "out_indices": (0,), **arguments}).eval()
    plain = timm.create_model("swin_tiny_patch4_window7_224", features_only=True, out_indices=(0,), **arguments).eval()
    plain.load_state_dict(backbone.state_dict())
    assert torch.equal(backbone(IMAGES)[0], plain(IMAGES)[0].permute(0, 3, 1, 2))


@pytest.mark.det
def test_mmdet_backbone_is_initialised_as_mmdet_does():
    backbone = build_backbone({"type": "mmdet.ResNet", "depth": 18, "out_indices": (3,)})
    weight = backbone.layer4[0].conv1.weight
    assert weight.std().item() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.02)  # kaiming normal, fan out
    assert (backbone.out_channels, backbone.out_strides) == ((512,), (32,))


@pytest.mark.parametrize(
    "cfg, message",
    [
        (
            {
                "type": "mmdet.ResNet",
                "depth": 50,
                "init_cfg": {"type": "Pretrained", "checkpoint": "torchvision://resnet50"},
            },
            r"backbone mmdet.ResNet: init_cfg=.*torchvision://resnet50.*--init FILE",
        ),
        ({"type": "mmdet.ResNet", "init_cfg": [{"type": "Pretrained", "checkpoint": "a.pth"}]}, r"init_cfg\[0\]="),
        ({"type": "mmdet.ResNet", "pretrained": "torchvision://resnet50"}, "pretrained='torchvision://resnet50'"),
        ({"type": "timm.resnet18", "pretrained": True}, "pretrained=True would download"),
        ({"type": "timm.resnet18", "checkpoint_path": "a.pth"}, "checkpoint_path='a.pth'"),
        ({"type": "ResNeet"}, "backbone type 'ResNeet' is unknown; did you mean ResNet"),
        ({}, "backbone type None is unknown; "),
        pytest.param({"type": "mmdet.SwinTransfomer"}, "did you mean mmdet.SwinTransformer", marks=pytest.mark.det),
        pytest.param({"type": "timm.resnet5O"}, "did you mean .*timm.resnet50", marks=pytest.mark.det),
    ],
    ids=str,
)
def test_refusals(cfg, message):
    with pytest.raises(ValueError, match=message):
        build_backbone(cfg)
