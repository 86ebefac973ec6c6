"""Files of torchvision and timm, loaded: the same features as those libraries' own models compute."""

import pytest
import timm
import torch
import torchvision

from densessl.branches.vit import ViT
from densessl.errors import LoadError
from densessl.weights.equality import stage_features
from densessl.weights.export import export_backbone
from densessl.weights.load import load_backbone
from tests.weights.cases import lived_in, retinanet
from tests.weights.vits import stirred

IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def stages(model: torch.nn.Module) -> list[torch.Tensor]:
    """Maps of a torchvision ResNet's stages, by its own layers."""
    x = model.maxpool(model.relu(model.bn1(model.conv1(IMAGES))))
    maps = []
    for layer in (model.layer1, model.layer2, model.layer3, model.layer4):
        maps.append(x := layer(x))
    return maps


@pytest.mark.det
@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize("converted", [False, True])
@torch.no_grad()
def test_torchvisions_resnet_in_mmdetection(tmp_path, depth, converted):
    model = lived_in(getattr(torchvision.models, f"resnet{depth}")(), seed=depth)
    file = tmp_path / "torchvision.pth"
    torch.save(model.state_dict(), file)
    if converted:
        export_backbone(file, file := tmp_path / "new.pth")
    detector = retinanet(depth)
    report = load_backbone(detector, file)
    stride = [] if depth == 18 else ["stride"]  # the file does not say where
    assert report.coverage == 1 and report.unverified == [*stride, "eps", "channel_order", "mean", "std"]
    detector.backbone.eval()
    for theirs, ours in zip(stages(model), detector.backbone(IMAGES)):
        assert torch.equal(theirs, ours) and theirs.std() > 0.01


@pytest.mark.det
@torch.no_grad()
def test_timms_resnet_in_mmdetection(tmp_path):
    model = lived_in(timm.create_model("resnet18", features_only=False), seed=3)
    torch.save(dict(state_dict=model.state_dict(), epoch=3), tmp_path / "timm.pth.tar")
    detector = retinanet(18)
    assert load_backbone(detector, tmp_path / "timm.pth.tar").coverage == 1
    detector.backbone.eval()
    assert torch.equal(model.forward_features(IMAGES), detector.backbone(IMAGES)[3])
    deep = timm.create_model("resnet18d").state_dict()  # a stem of three convolutions, and pooling in shortcuts
    with pytest.raises(LoadError, match=r"stem: found 7x7, expected deep.*\n.*shortcut: found conv, expected avgpool"):
        load_backbone(detector, deep)


@torch.no_grad()
def test_timms_vit(tmp_path):
    model = stirred(timm.create_model("vit_tiny_patch16_224", img_size=64, depth=3, num_classes=5))
    torch.save(model.state_dict(), tmp_path / "timm.pth")
    ours = ViT(image_size=64, dim=192, depth=3, heads=3, final_norm=True).eval()
    report = load_backbone(ours, tmp_path / "timm.pth")
    assert report.coverage == 1 and not report.unexpected
    theirs, loaded = stage_features(model, IMAGES), stage_features(ours, IMAGES, class_token=True)
    assert list(theirs) == list(loaded) == ["blocks.0", "blocks.1", "blocks.2"]
    for name, tokens in theirs.items():
        torch.testing.assert_close(tokens, loaded[name], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_torchvisions_vit(tmp_path):
    model = stirred(torchvision.models.VisionTransformer(64, 16, 3, 4, 64, 128, num_classes=5))
    torch.save(model.state_dict(), tmp_path / "torchvision.pth")
    ours = ViT(image_size=64, dim=64, depth=3, heads=4, mlp_ratio=2.0, final_norm=True).eval()
    report = load_backbone(ours, tmp_path / "torchvision.pth")
    assert report.coverage == 1 and not report.unexpected
    tokens = torch.cat([model.class_token.expand(2, -1, -1), model._process_input(IMAGES)], dim=1)
    tokens = tokens + model.encoder.pos_embedding
    loaded = stage_features(ours, IMAGES, class_token=True)
    for i, layer in enumerate(model.encoder.layers):
        tokens = layer(tokens)
        torch.testing.assert_close(tokens, loaded[f"blocks.{i}"], rtol=1e-5, atol=1e-5)
