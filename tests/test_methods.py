"""Methods by name: which config, with which backbone."""

import pytest
import torch

from densessl.configs import load_config
from densessl.errors import DensesslError, SettingError
from densessl.methods import default_backbone, list_methods, method_config, size_changes
from densessl.runs import RunSettings, run_config


def test_methods_are_read_off_the_configs():
    methods = list_methods()
    assert methods["pixpro"].configs == {"resnet18": "pixpro_r18", "resnet50": "pixpro_r50", "vit_s": "pixpro_vit_s"}
    assert methods["densecl"].configs == {"resnet18": "small/densecl_r18", "resnet50": "densecl_r50"}
    assert methods["ccop"].configs == {"resnet18": "small/ccop_r18", "resnet50": "ccop_r50_coco"}
    assert methods["detreg_detr"].configs == {"resnet50": "detreg_detr_r50"}
    assert default_backbone(methods["sim"]) == "vit_b"
    assert list(methods) == sorted(methods)
    assert methods["mocov2"].summary.startswith("MoCo v2, ResNet-50, 200 epochs of ImageNet (Chen et al., arXiv")
    for method in methods.values():
        for backbone, name in method.configs.items():
            model = load_config(name).model
            if "online" in model and backbone.startswith("resnet"):
                assert model.online.backbone.depth == int(backbone.removeprefix("resnet")), name
            assert ("online" in model and model.online.backbone.type == "ViT") == backbone.startswith("vit")


def backbone_of(method, backbone):
    """The backbone's config in the run's."""
    name, changes = method_config(method, backbone)
    return name, run_config(RunSettings(name, options=changes)).model.online.backbone.to_dict()


def test_another_depth_keeps_all_else():
    name, resnet = backbone_of("pixpro", "resnet34")
    assert name == "pixpro_r50" and resnet == load_config(name).model.online.backbone.to_dict() | {"depth": 34}
    assert backbone_of("pixpro_r18", "resnet101")[1]["depth"] == 101
    assert (
        backbone_of("pixpro", dict(depth=18, width=8))[1].items()
        >= {"depth": 18, "width": 8, "zero_gamma": True}.items()
    )
    assert method_config("pixpro", "vit_s") == ("pixpro_vit_s", {})
    assert method_config("pixpro_r50_400e") == ("pixpro_r50_400e", {})


@pytest.mark.det
@pytest.mark.parametrize(
    ("method", "backbone", "indices"),
    [
        ("pixpro", "timm.test_resnet", (4,)),  # stride 32
        ("densecl", "timm.test_resnet", (4,)),
        ("small/densecl_r18", "timm.test_resnet", (3, 4)),  # strides 16 and 32, of 2 to 32
        ("detco", "timm.test_resnet", (1, 2, 3, 4)),
        ("pixpro", "timm.test_vit", (5,)),  # all of stride 16: the last
        ("pixpro", dict(type="mmdet.MobileNetV2", widen_factor=0.1), (7,)),  # the last of each stride
        ("small/densecl_r18", dict(type="mmdet.MobileNetV2", widen_factor=0.1), (4, 7)),
        ("small/densecl_r18", dict(type="mmdet.ResNet", depth=18, stem_channels=8, base_channels=8), (2, 3)),
        ("pixpro", dict(type="timm.test_resnet", out_indices=(1, 4)), (1, 4)),  # as told
    ],
)
def test_other_backbones_give_maps_of_the_strides_that_objectives_work_on(method, backbone, indices):
    _, config = backbone_of(method, backbone)
    assert config["out_indices"] == indices
    assert config["type"] == (backbone if isinstance(backbone, str) else backbone["type"])
    assert "depth" not in config or config["depth"] == 18


@pytest.mark.det
def test_batch_norms_of_a_resnet_of_mmdet_train():
    """Its default keeps them in evaluation mode, for fine-tuning."""
    small = dict(type="mmdet.ResNet", depth=18, stem_channels=8, base_channels=8)
    assert backbone_of("pixpro", small)[1]["norm_eval"] is False
    assert backbone_of("pixpro", dict(small, norm_eval=True))[1]["norm_eval"] is True


@pytest.mark.parametrize(
    ("method", "backbone", "words"),
    [
        ("pxpro", None, "method 'pxpro' is unknown; did you mean pixpro?"),
        ("pixpro", "resnet152", "does not go with pixpro_r50; did you mean resnet50 or resnet18 or resnet101?"),
        ("sim", "resnet50", "does not go with sim_vit_b; known: mmdet.NAME, timm.NAME, vit_b, vit_s, vit_tiny"),
        ("detreg_detr", "resnet18", "detreg_detr_r50 pretrains a whole detector"),
        ("pixpro", "timm.resnet1", "backbone type 'timm.resnet1' is unknown; did you mean timm.resnet18"),
        (
            "small/densecl_r18",
            dict(type="ViT", dim=16, heads=2, depth=1),
            "maps have strides [16], the objectives of small/densecl_r18 work on [16, 32]; say which maps to take",
        ),
        ("pixpro", dict(type="ViT", dims=16), "give arguments by backbone=dict(type='ViT'"),
    ],
)
def test_what_does_not_go_together_is_told_with_what_does(method, backbone, words):
    with pytest.raises(SettingError) as error:
        method_config(method, backbone)
    assert words in str(error.value)


def test_looking_at_a_backbone_draws_no_random_numbers():
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    method_config("pixpro", dict(type="ViT", dim=16, heads=2, depth=1))
    assert torch.equal(torch.rand(2), expected)


def test_local_crops_keep_their_ratio():
    assert size_changes("swav_r50", 112) == {"views.0.size": 112, "views.1.size": 48}
    assert size_changes("pixpro_r18", 32) == {"views.0.size": 32, "views.1.size": 32}
    with pytest.raises(DensesslError, match="size: detreg_detr_r50 has no square views"):
        size_changes("detreg_detr_r50", 112)
