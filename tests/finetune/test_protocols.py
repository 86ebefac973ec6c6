"""Every protocol trains two steps on tiny data of its layout and evaluates them: shrunk here, never in the config."""

from pathlib import Path

import pytest
from mmengine.hooks import Hook

from densessl.cli.train import settings_of
from densessl.finetune.load_hooks import LoadBackboneHook
from densessl.runs import run_config
from densessl.weights.export import export_backbone
from tests.finetune.voc_coco_fixtures import write_coco, write_voc
from tests.weights import vits
from tests.weights.cases import checkpoint

CONFIGS = Path(__file__).parents[2] / "configs" / "transfer"
PROTOCOLS = [
    f"{path.parent.name}/{path.name}"
    for path in sorted([*CONFIGS.glob("coco/*.py"), *CONFIGS.glob("voc/*.py")])
    if not path.name.startswith("fcn")  # those are segmentors
]
FEW = dict(max_per_img=4, nms_pre=50)
METRICS = {
    "coco/mask-rcnn": {"coco/bbox_mAP", "coco/segm_mAP"},
    "coco/retinanet_r18": {"coco/bbox_mAP", "coco/bbox_AR@100"},
    "coco/": {"coco/bbox_mAP", "coco/bbox_mAP_50", "coco/bbox_mAP_s"},
    "voc/faster-rcnn": {"pascal_voc/mAP", "pascal_voc/AP50", "pascal_voc/AP75", "pascal_voc/AP95"},
    "voc/": {"pascal_voc/AP50", "coco/bbox_mAP"},
}
VIT = {
    "model.backbone.embed_dim": 32,
    "model.backbone.depth": 3,
    "model.backbone.num_heads": 2,
    "model.backbone.mlp_ratio": 2.0,
    "model.backbone.window_size": 4,
    "model.backbone.window_block_indexes": [0, 2],
    "model.backbone.patch_size": 16,
    "model.backbone.img_size": 64,
    "model.backbone.pretrain_img_size": 64,
    "model.neck.backbone_channel": 32,
}


class Scores(Hook):
    """Keeps what the validations of a run found."""

    def __init__(self):
        self.found = []

    def after_val_epoch(self, runner, metrics=None):
        self.found.append(metrics)


@pytest.fixture(scope="module")
def backbones(tmp_path_factory) -> dict[str, Path]:
    """Exports of ours, by what a config's name has."""
    folder = tmp_path_factory.mktemp("backbones")
    contents = {"r18": checkpoint(18)[0], "r50": checkpoint(50)[0], "vitdet": vits.checkpoint()[0]}
    for name, content in contents.items():
        export_backbone(content, folder / f"{name}.pth")
    return {name: folder / f"{name}.pth" for name in contents}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> dict[str, Path]:
    from mmdet.datasets import CocoDataset, VOCDataset

    folder = tmp_path_factory.mktemp("data")
    return {
        "coco": write_coco(folder / "coco", CocoDataset.METAINFO["classes"], crowd=True),
        "voc": write_voc(folder / "voc", VOCDataset.METAINFO["classes"][5:7], years=("VOC2007", "VOC2012")),
    }


def smaller(node) -> None:
    """Images of at most 64x96, crops of 64x64, and loaders in this process, at every place of a config."""
    if isinstance(node, list | tuple):
        for value in node:
            smaller(value)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key == "scales":
                node[key] = [(96, 64), (80, 56)]
            elif key == "scale":
                node[key] = (64, 64) if value[0] == value[1] else (96, 64)
            elif key == "crop_size":
                node[key] = (64, 64)
            elif key == "num_workers":
                node[key] = 0
            elif key == "persistent_workers":
                node[key] = False
            else:
                smaller(value)


def shrunk(name: str, data: Path, init: Path, work_dir: Path):
    """A protocol of two steps of two images; few proposals, queries and layers; every score counts."""
    words = [str(CONFIGS / name), "--data-root", str(data), "--init", str(init), "--work-dir", str(work_dir)]
    config = run_config(settings_of(words))
    for part in ("train_dataloader", "val_dataloader", "test_dataloader"):
        smaller(config[part])
    options = {
        "train_dataloader.batch_size": 2,
        "val_dataloader.batch_size": 1,
        "val_dataloader.dataset.indices": 2,
        "default_hooks.checkpoint": dict(type="CheckpointHook", interval=9, save_last=False),
        "experiment_name": name.replace("/", "_"),
    }
    model = config.model
    if config.train_cfg.type == "IterBasedTrainLoop":
        options |= {"train_cfg.max_iters": 2, "train_cfg.val_interval": 2}
    else:
        options |= {"train_cfg.max_epochs": 1}
    if "rpn_head" in model:
        options |= {
            "model.train_cfg.rpn_proposal": model.train_cfg.rpn_proposal | FEW,
            "model.train_cfg.rcnn.sampler.num": 4,
            "model.test_cfg.rpn": model.test_cfg.rpn | FEW,
            "model.test_cfg.rcnn.score_thr": 0.0,
        }
    elif "encoder" in model:
        options |= {
            "model.num_queries": 8,
            "model.encoder.num_layers": 1,
            "model.decoder.num_layers": 2,
            "model.test_cfg.max_per_img": 8,
        }
    else:
        options |= {"model.test_cfg.score_thr": 0.0}
    if "ViTDet" in model.backbone.type:
        options |= VIT
        if "pad_size_divisor" in model.data_preprocessor and model.data_preprocessor.pad_size_divisor > 64:
            options |= {"model.data_preprocessor.pad_size_divisor": 64}
    for i, hook in enumerate(config.custom_hooks):
        if hook.type == "densessl.PreciseBNHook":
            options[f"custom_hooks.{i}.batches"] = 2
    config.merge_from_dict(options)
    return config


@pytest.mark.det
@pytest.mark.slow
@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_protocol_trains_and_evaluates(name, data, backbones, tmp_path):
    from densessl.engine.runner import DenseRunner

    kind = next(kind for kind in backbones if kind in name)
    config = shrunk(name, data[name.partition("/")[0]], backbones[kind], tmp_path)
    runner = DenseRunner.from_cfg(config)
    scores = Scores()
    runner.register_hook(scores)
    runner.train()
    assert runner.iter == 2
    report = next(hook.report for hook in runner.hooks if isinstance(hook, LoadBackboneHook))
    assert report.coverage == 1.0 and not report.differences and not report.unverified
    c4 = "conditional-detr_r18" in name
    assert report.loaded == {"r18": 90 if c4 else 120, "r50": 318, "vitdet": report.expected}[kind]
    (found,) = scores.found
    assert METRICS[next(part for part in METRICS if part in name)] <= found.keys()
    assert all(-1 <= value <= 1 for value in found.values())
    assert all(value.isfinite().all() for value in runner.model.state_dict().values())
