"""Fine-tuning a ViT: learning rates by layer, and the published config, shrunk, for a step in a stock runner."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from densessl.branches.resnet import ResNet
from densessl.finetune.layer_decay import LayerDecayConstructor
from densessl.weights.export import export_backbone
from tests.objectives.toy import toy_model
from tests.weights.cases import NORMALIZE
from tests.weights.vits import VITDET, vitdet

CONFIG = Path(__file__).parents[2] / "configs" / "transfer" / "coco" / "mask-rcnn_vitdet-b_100e.py"
ADAMW = dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=1e-4, betas=(0.9, 0.999), weight_decay=0.1))
VIT = dict(type="ViT", image_size=64, patch_size=16, dim=32, depth=3, heads=2, mlp_ratio=2, freeze_patch_embed=True)
SIM = dict(type="SIM", patch_size=16, dim=16, heads=2, mlp_ratio=2, projector_depth=1, decoder_depth=1)


class Detector(nn.Module):
    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone
        self.neck = nn.Sequential(nn.Conv2d(32, 8, 1), nn.GroupNorm(2, 8))


def rates(wrapper, model) -> dict[str, tuple[float, float]]:
    """Learning rate and weight decay of every parameter that is optimised, by name."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = wrapper.optimizer.param_groups
    found = [(names[id(p)], (group["lr"], group["weight_decay"])) for group in groups for p in group["params"]]
    assert len(found) == len(dict(found)), "a parameter is in two groups"
    return dict(found)


def test_every_parameter_has_the_rate_of_its_layer():
    model = Detector(vitdet())
    model.backbone.blocks[1].mlp.fc1.weight.requires_grad_(False)
    found = rates(LayerDecayConstructor(ADAMW, dict(decay_rate=0.7))(model), model)
    assert found.keys() == dict(model.named_parameters()).keys() - {"backbone.blocks.1.mlp.fc1.weight"}
    # Three blocks: 0.7 of the head's rate in the last, 0.7 ** 4 in the patches.
    layers = {"patch_embed": 4, "pos_embed": 4, "blocks.0": 3, "blocks.1": 2, "blocks.2": 1}
    for name, (rate, decay) in found.items():
        inside = name.removeprefix("backbone.")
        power = next((layers[layer] for layer in layers if inside.startswith(layer)), 0)
        assert math.isclose(rate, 1e-4 * 0.7**power), name
        plain = name.endswith(".bias") or "norm" in name or name in ("backbone.pos_embed", "neck.1.weight")
        assert decay == (0.0 if plain else 0.1), name
    assert found["backbone.blocks.0.attn.rel_pos_h"][1] == 0.1


def test_one_rate_for_all_is_the_default_and_wrong_settings_are_named():
    model = Detector(vitdet())
    assert {rate for rate, _ in rates(LayerDecayConstructor(ADAMW)(model), model).values()} == {1e-4}
    for wrong in (0.0, 1.5):
        with pytest.raises(ValueError, match=rf"paramwise_cfg.decay_rate is {wrong}, expected a number in \(0, 1\]"):
            LayerDecayConstructor(ADAMW, dict(decay_rate=wrong))
    with pytest.raises(ValueError, match="paramwise_cfg key 'num_layers' is unknown; known:"):
        LayerDecayConstructor(ADAMW, dict(decay_rate=0.7, num_layers=12))
    with pytest.raises(ValueError, match="found a backbone of the type ResNet, expected one that tells the layer"):
        LayerDecayConstructor(ADAMW, dict(decay_rate=0.7))(Detector(ResNet(18, width=8)))


def shrunk_config(checkpoint: Path):
    """The published config for images of 128 pixels, with a narrow detector."""
    from densessl.configs import load_config

    config = load_config(str(CONFIG))
    model = config.model
    model.data_preprocessor.pad_size_divisor = 128
    model.backbone.update(VITDET, drop_path_rate=0.0)
    model.neck.update(backbone_channel=32, out_channels=8)
    model.rpn_head.update(in_channels=8, feat_channels=8)
    for extractor in (model.roi_head.bbox_roi_extractor, model.roi_head.mask_roi_extractor):
        extractor.out_channels = 8
    model.roi_head.bbox_head.update(in_channels=8, conv_out_channels=8, fc_out_channels=8, num_classes=2)
    model.roi_head.mask_head.update(in_channels=8, conv_out_channels=8, num_classes=2)
    config.custom_hooks[0].checkpoint = str(checkpoint)
    return config


def photo(height: int, width: int) -> dict:
    """An image with two objects, as a pipeline of MMDetection hands it over."""
    import numpy as np
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData

    boxes = torch.tensor([[5.0, 5.0, 60.0, 50.0], [20.0, 30.0, 80.0, 90.0]])
    masks = np.zeros((2, height, width), dtype=np.uint8)
    masks[0, 5:50, 5:60] = masks[1, 30:90, 20:80] = 1
    sample = DetDataSample(metainfo=dict(img_shape=(height, width), ori_shape=(height, width), scale_factor=(1.0, 1.0)))
    labels = torch.tensor([0, 1])
    sample.gt_instances = InstanceData(bboxes=boxes, labels=labels, masks=BitmapMasks(masks, height, width))
    return dict(inputs=torch.randint(0, 256, (3, height, width), dtype=torch.uint8), data_samples=sample)


@pytest.mark.det
def test_the_published_config_trains_a_step_from_an_export_of_sim_in_a_stock_runner(tmp_path):
    from mmengine.runner import Runner

    torch.manual_seed(0)
    pretrained = toy_model([SIM], None, VIT)
    told = dict(pretrained.describe(), normalize=NORMALIZE)
    export_backbone(dict(state_dict=pretrained.state_dict(), meta=dict(densessl=told)), tmp_path / "vit.pth")
    config = shrunk_config(tmp_path / "vit.pth")
    runner = Runner(
        model=config.model,
        work_dir=str(tmp_path),
        train_dataloader=dict(
            batch_size=2,
            num_workers=0,
            dataset=[photo(100, 128), photo(128, 90)],
            sampler=dict(type="DefaultSampler", shuffle=False),
            collate_fn=dict(type="pseudo_collate"),
        ),
        train_cfg=dict(type="IterBasedTrainLoop", max_iters=1),
        optim_wrapper=config.optim_wrapper,
        param_scheduler=None,
        default_hooks=dict(checkpoint=None, runtime_info=None),
        custom_hooks=[*config.custom_hooks],
        default_scope="mmdet",
        randomness=dict(seed=0),
        experiment_name="vitdet",
    )
    before = {}
    (hook,) = (hook for hook in runner.hooks if type(hook).__name__ == "LoadBackboneHook")
    load = hook.before_train
    hook.before_train = lambda runner: (load(runner), before.update(copied(runner.model)))
    runner.train()
    assert hook.report.coverage == 1 and not hook.report.unverified and not hook.report.differences
    assert hook.report.summary.startswith(
        "39/39 backbone tensors loaded; 0 unexpected; not used: cls_token; rel_pos: 6"
    )
    source = pretrained.online.backbone.state_dict()
    assert all(torch.equal(before[f"backbone.{key}"], value) for key, value in source.items() if key != "cls_token")

    model = runner.model
    assert type(model.backbone).__name__ == "ViTDet" and model.training
    moved = {name for name, value in copied(model).items() if not torch.equal(value, before[name])}
    assert {"backbone.pos_embed", "backbone.patch_embed.proj.weight"} <= moved
    still = {name for name in dict(model.named_parameters()).keys() - moved if name.startswith(("backbone", "neck"))}
    assert not still
    wanted = rates(runner.optim_wrapper, model)
    assert wanted["backbone.pos_embed"] == (pytest.approx(1e-4 * 0.7**4), 0.0)
    assert wanted["roi_head.bbox_head.fc_cls.weight"] == (1e-4, 0.1)


def copied(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


@pytest.mark.det
def test_the_published_config_is_the_papers_recipe():
    from mmdet.registry import MODELS
    from mmengine.optim import build_optim_wrapper
    from mmengine.registry import DefaultScope

    from densessl.configs import load_config

    config = load_config(str(CONFIG))
    with DefaultScope.overwrite_default_scope("mmdet"), torch.device("meta"):
        model = MODELS.build(config.model)
    backbone = model.backbone
    tables = [tuple(block.attn.rel_pos_h.shape) for block in backbone.blocks]
    assert [i for i, table in enumerate(tables) if table == (127, 64)] == [2, 5, 8, 11]
    assert tables.count((27, 64)) == 8 and backbone.pos_embed.shape == (1, 197, 768)
    assert len(model.rpn_head.rpn_conv) == 2 and len(model.roi_head.bbox_head.shared_convs) == 4
    assert all(parameter.requires_grad for parameter in model.parameters())
    found = rates(build_optim_wrapper(model, config.optim_wrapper), model)
    assert found["backbone.patch_embed.proj.weight"] == (pytest.approx(1e-4 * 0.7**13), 0.1)
    assert found["backbone.blocks.11.mlp.fc2.weight"] == (pytest.approx(0.7e-4), 0.1)
    assert found["neck.fpn1.0.weight"] == (1e-4, 0.1)
    assert config.train_dataloader.batch_size * 8 == config.auto_scale_lr.base_batch_size == 64
    steps = config.train_cfg.max_iters
    assert steps % config.train_cfg.val_interval == steps % config.default_hooks.checkpoint.interval == 0
