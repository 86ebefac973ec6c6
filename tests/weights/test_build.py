"""The network of a file, and a model in the place of a file."""

import pytest
import torch
from torch import nn

from densessl.branches import build_backbone
from densessl.errors import CheckpointError, ExportError, SettingError, UnsafeCheckpointError
from densessl.model import TwoBranch
from densessl.weights.build import backbone_from
from densessl.weights.export import export_backbone
from densessl.weights.io.checkpoints import load_weights, save_checkpoint
from densessl.weights.load import load_backbone

RESNET = dict(type="ResNet", depth=18, width=8, out_indices=(1, 3), norm_cfg=dict(type="SyncBN"))
VIT = dict(type="ViT", image_size=32, patch_size=8, dim=16, depth=2, heads=2)


@pytest.fixture(params=[RESNET, VIT], ids=["resnet", "vit"])
def model(request):
    """Its branches differ."""
    torch.manual_seed(1)
    model = TwoBranch(dict(backbone=request.param), [dict(type="BYOL", hidden=8, dim=4)], channels_last=False)
    for value in model.target.branch(model.online).parameters():
        value.data += 0.1
    return model


@pytest.mark.parametrize("branch", ["online", "target"])
def test_the_network_of_a_file_computes_what_the_branch_does(model, branch, tmp_path):
    export_backbone(model, tmp_path / "backbone.pth", branch=branch)
    described = dict(state_dict=model.state_dict(), meta=dict(densessl=model.describe()))
    save_checkpoint(tmp_path / "epoch_1.pth", described)
    backbone = (model.online if branch == "online" else model.target.branch(model.online)).backbone.eval()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(3)
    for built in (
        backbone_from(tmp_path / "backbone.pth"),
        backbone_from(str(tmp_path / "epoch_1.pth"), branch),
        backbone_from(model, branch),
    ):
        assert not built.training and built.out_channels == backbone.out_channels
        with torch.no_grad():
            assert all(map(torch.equal, built(images), backbone(images)))
    drawn = torch.rand(2)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(2))


def test_a_file_that_does_not_say_its_network_is_refused(tmp_path):
    torch.save(build_backbone(RESNET).state_dict(), tmp_path / "bare.pth")
    with pytest.raises(ExportError, match=r"bare\.pth does not describe its network"):
        backbone_from(tmp_path / "bare.pth")


def test_what_a_file_says_is_not_run(model, tmp_path):
    meta = dict(densessl=dict(model.describe(), backbone=dict(type="os.system", command="true")))
    save_checkpoint(tmp_path / "bad.pth", dict(state_dict=model.state_dict(), meta=meta))
    with pytest.raises(UnsafeCheckpointError, match=r"os\.system"):
        backbone_from(tmp_path / "bad.pth")


def test_a_network_that_cannot_be_built_is_one_line(tmp_path):
    content = dict(state_dict={"online.backbone.conv1.weight": torch.ones(8, 3, 7, 7)})
    content["meta"] = dict(densessl=dict(backbone=dict(type="ResNet", depth=19)))
    with pytest.raises(CheckpointError, match="the given state describes a network that cannot be built"):
        backbone_from(content)


def test_a_model_is_exported_as_its_checkpoint_is(model, tmp_path):
    described = dict(state_dict=model.state_dict(), meta=dict(densessl=model.describe()))
    assert export_backbone(model, tmp_path / "one.pth") == export_backbone(described, tmp_path / "two.pth")
    one, two = load_weights(tmp_path / "one.pth"), load_weights(tmp_path / "two.pth")
    assert one.keys() == two.keys() and all(torch.equal(value, two[name]) for name, value in one.items())
    loaded = build_backbone(model.config["backbone"])
    assert load_backbone(loaded, model).source == "the given TwoBranch"
    assert all(
        torch.equal(value, loaded.state_dict()[key]) for key, value in model.online.backbone.state_dict().items()
    )


def test_a_diverged_model_is_not_exported(model, tmp_path):
    next(model.online.backbone.parameters()).data[0] = float("nan")
    with pytest.raises(ExportError, match="NaN or infinity in 1 tensor, first 'backbone"):
        export_backbone(model, tmp_path / "one.pth")
    assert not list(tmp_path.iterdir())


def test_a_model_from_elsewhere_does_not_describe_itself(tmp_path):
    with pytest.raises(SettingError, match=r"found a Conv2d as the source of weights, .* give its state_dict\(\)"):
        export_backbone(nn.Conv2d(3, 3, 1), tmp_path / "none.pth")
