"""The configs of SIM: the optimiser's groups are the official ones, and each ablation changes what it says."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope
from PIL import Image

from densessl.configs import load_config
from densessl.data import UnlabelledImages, collate_views
from densessl.engine.lars import split_parameters
from densessl.pretraining import link_views
from densessl.registry import MODELS
from densessl.schedules import Horizon
from tests.golden.sim import ABSENT, TABLE

CONFIGS = Path("configs")
ABLATIONS = sorted((CONFIGS / "ablation/sim").glob("*.py"))
OFFICIAL = Path(__file__).parent.parent / "data/golden/sim_optimizer_groups.json"
# What each differs in from SIM, beside views that are not looked at.
DIFFERENCES = {
    "global_term": {"global_weight"},
    "ln_heads": {"projector_norm", "decoder_norm"},
    "mae": {"predict", "score", "views", "target", "mask", "photometric", "scale"},
    "no_mask": {"masked", "mask"},
    "no_negatives": {"negative_weight"},
    "other_view_pixels": {"predict", "target"},
    "random_mask": {"mask"},
    "same_view_features": {"views"},
    "same_view_pixels": {"predict", "views", "target"},
}


def build(cfg):
    link_views(cfg)
    with DefaultScope.overwrite_default_scope("densessl"):
        return MODELS.build(cfg.model).train()


def test_the_optimisers_groups_are_the_official_ones():
    """timm's: of at most one dimension and biases without decay, so class and mask token with it. (The official lists
    are of a model with one block in projector and decoder each.)"""
    cfg = load_config("configs/sim_vit_b.py")
    cfg.model.objectives[0].update(projector_depth=1, decoder_depth=1)
    with torch.device("meta"):
        model = build(cfg)
    optimizer = cfg.optim_wrapper.optimizer
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = split_parameters(model, optimizer.weight_decay, **cfg.optim_wrapper.paramwise_cfg)
    ours = {group["weight_decay"]: {names[id(parameter)] for parameter in group["params"]} for group in groups}
    official = json.loads(OFFICIAL.read_text())
    expected = {
        key: {renamed(name) for name in value if not name.startswith(ABSENT)} for key, value in official.items()
    }
    assert ours == {0.05: expected["decay"], 0.0: expected["no_decay"]}
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {name for name in expected["not_in_optimizer"] if "running" not in name}
    assert "online.backbone.cls_token" in ours[0.05] and "objectives.sim.decoder.mask_token" in ours[0.05]


def renamed(name):
    part, dot, rest = name.replace(".bn.", ".").partition(".")
    return TABLE[part] + dot + rest


def test_the_published_recipe():
    cfg = load_config("configs/sim_vit_b.py")
    assert cfg.train_dataloader.batch_size * 32 == cfg.default_hooks.lr.reference_batch == 4096
    assert cfg.optim_wrapper.optimizer.lr == 6.25e-5 * 4096 / 256
    assert cfg.optim_wrapper.optimizer.betas == (0.9, 0.95) and cfg.optim_wrapper.clip_grad == dict(max_norm=1.0)
    with torch.device("meta"):
        model = build(cfg)
    assert round(sum(p.numel() for p in model.parameters() if p.requires_grad) / 1e6, 2) == 129.94
    names = [[op["type"] for op in view["photometric"]] for view in cfg.views]
    assert names == [
        ["ColorJitter", "Grayscale", "GaussianBlur"],
        ["ColorJitter", "Grayscale", "GaussianBlur", "Solarize"],
    ]


def parts(path):
    """Settings of a config by the names above; those of the first view only."""
    cfg = load_config(str(path))
    (objective,) = cfg.model.objectives
    return (
        dict(objective)
        | dict(cfg.views[0])
        | dict(target=cfg.model.target, online=cfg.model.online)
        | {key: cfg[key] for key in ("train_dataloader", "train_cfg", "optim_wrapper", "default_hooks")}
    )


@pytest.mark.parametrize("path", ABLATIONS, ids=lambda path: path.stem)
def test_an_ablation_changes_what_it_says(path):
    base, own = parts("configs/sim_vit_b.py"), parts(path)
    assert {key for key in base | own if base.get(key) != own.get(key)} == DIFFERENCES[path.stem]


@pytest.mark.parametrize("path", [*sorted(CONFIGS.glob("sim_vit_*.py")), *ABLATIONS], ids=lambda path: path.stem)
def test_a_narrow_copy_of_each_config_trains(path, tmp_path):
    """Every parameter gets a gradient: distributed training looks for no unused ones."""
    for number in range(3):
        noise = np.random.default_rng(number).integers(0, 256, (120, 160, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{number}.png")
    cfg = load_config(str(path))
    assert all(key.split(".")[0] in ("train_cfg", "train_dataloader", "default_hooks") for key in cfg.demo)
    cfg.model.online.backbone.update(dim=16, depth=1, heads=2)
    cfg.model.objectives[0].update(dim=16, heads=2, projector_depth=1, decoder_depth=1)
    torch.manual_seed(0)
    model = build(cfg)
    dataset = UnlabelledImages(str(tmp_path), cfg.views)
    batch = model.data_preprocessor(collate_views([dataset[0, index] for index in range(3)]), training=True)
    model.begin(Horizon(1, 2, 2, 3, 3))
    total, figures = model.parse_losses(model.loss(batch))
    total.backward()
    assert all(torch.isfinite(value) for value in figures.values())
    assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)
