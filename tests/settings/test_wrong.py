"""What is wrong is told, a line each: key path, what was found, what was expected, the nearest name."""

from typing import Any

import pytest

from densessl.errors import SETTINGS, SettingError
from densessl.settings import check_config, require
from tests.settings.run_of import run_of

MOCO, PYRAMID, REGIONS = "small/mocov2_r18.py", "small/pixpro_r18_fpn.py", "small/ccop_r18.py"
LOCAL, CROPS, SIM = "small/lcloss_r18.py", "small/scfs_r18.py", "sim_vit_tiny.py"
JITTER, SWAV, PASTE = "detco_r50.py", "swav_r50.py", "regioncl_m_r50.py"
DETREG, RETINANET = "small/detreg_conditional_detr_r18.py", "transfer/voc/retinanet_r18_256_voc.py"


def at(config: str, key: str, value: Any, rest: str) -> tuple[str, dict[str, Any], str]:
    """A row of the table: the line begins with the key path of the option."""
    return config, {key: value}, f"{key}: {rest}"


# (config, options, how the one line begins that they lead to)
WRONG = [
    # Names that nothing reads.
    at(MOCO, "learning_rate", 3, "unknown (valid: activation_checkpointing, auto_scale_lr, "),
    at(MOCO, "resum", True, "unknown; did you mean resume?"),
    at(MOCO, "jitter", 3, "unknown (valid: "),
    (
        MOCO,
        {"model.online.nekc.type": "FPN"},
        "model.online.nekc: unknown; did you mean neck? (valid: backbone, head, ",
    ),
    at(MOCO, "env_cfg.cudnn_benchmarkk", True, "unknown; did you mean cudnn_benchmark?"),
    at(MOCO, "env_cfg.mp_cfg.opencv_threads", 1, "unknown; did you mean opencv_num"),
    at(MOCO, "randomness.sed", 1, "unknown; did you mean seed?"),
    at(MOCO, "train_cfg.max_epoch", 3, "unknown; did you mean max_epochs"),
    (MOCO, {"val_cfg": dict(fp32=True)}, "val_cfg.fp32: unknown (valid for ValLoop: fp16)"),
    at(MOCO, "train_dataloader.batchsize", 8, "unknown; did you mean batch_size"),
    at(MOCO, "train_dataloader.sampler.shufle", 1, "unknown; did you mean shuffle?"),
    at(MOCO, "train_dataloader.dataset.limt", 5, "unknown; did you mean limit?"),
    at(MOCO, "model.objectives.0.lenght", 1, "unknown; did you mean length or weight? (valid"),
    at(MOCO, "model.target.timming", "x", "unknown; did you mean timing? (valid for build_target: "),
    at(MOCO, "model.online.backbone.norm_cfg.momentun", 1, "unknown; did you "),
    at(PYRAMID, "model.online.neck.out_channel", 64, "unknown; did you mean out_channels"),
    at(MOCO, "views.0.szie", 160, "unknown; did you mean size? (valid for ViewSpec: "),
    at(MOCO, "views.0.photometric.0.brightnes", 1, "unknown; did you mean brightness"),
    (MOCO, {"views.*.mask": dict(type="random", patch_size=16, hidden=9, patch=3)}, "views.0.mask.patch: unknown"),
    at(REGIONS, "regions.select.0.hihg", 2, "unknown; did you mean high?"),
    at(DETREG, "view.shrot", (100,), "unknown; did you mean short? (valid for WholeSpec: "),
    at(DETREG, "model.pretext.wieght", 2, "unknown; did you mean weight? (valid for DETReg: "),
    (
        DETREG,
        {"model.options": {"encoder.num_layer": 2}},
        "model.options.encoder.num_layer: unknown; did you mean num_",
    ),
    (
        DETREG,
        {"model.options": {"encode.layers": 2}},
        "model.options.encode.layers: the detector's config has no dict at",
    ),
    at(MOCO, "optim_wrapper.precison", "auto", "unknown; did you mean precision?"),
    at(MOCO, "optim_wrapper.optimizer.nestrov", 1, "unknown; did you mean nesterov?"),
    at(MOCO, "optim_wrapper.paramwise_cfg.exlude", (), "unknown; did you mean excl"),
    at(CROPS, "optim_wrapper.clip_grad.max_nrom", 3, "unknown; did you mean max_norm"),
    at(MOCO, "default_hooks.checkpoint.intervall", 5, "unknown; did you mean inter"),
    at(MOCO, "default_hooks.checkpoint.keep", 5, "unknown"),
    (MOCO, {"default_hooks.chekpoint.interval": 5}, "default_hooks.chekpoint: unknown; did you mean checkpoint?"),
    at(MOCO, "default_hooks.logger.intervl", 5, "unknown; did you mean interval?"),
    at(MOCO, "default_hooks.lr.refernce_batch", 5, "unknown; did you mean reference_"),
    at(MOCO, "default_hooks.lr.schedule.warmup", 5, "unknown; did you mean warmup_ep"),
    at(MOCO, "visualizer.vis_backend", [], "unknown; did you mean vis_backends?"),
    at(MOCO, "log_processor.by_epochs", True, "unknown; did you mean by_epoch?"),
    at(MOCO, "model_wrapper_cfg.broadcast_buffer", 1, "unknown; did you mean broad"),
    at(RETINANET, "model.backbone.depht", 18, "unknown; did you mean depth? (valid for ResNet: "),
    at(RETINANET, "train_dataloader.dataset.ann_fle", "x", "unknown; did you mean ann"),
    at(RETINANET, "param_scheduler.0.gama", 0.1, "unknown (valid for LinearLR: "),
    at(RETINANET, "custom_hooks.0.checkpont", "x", "unknown; did you mean checkpoint?"),
    at(CROPS, "model.objectives.0.freeze_epochs", 2, "is no longer taken; write train_"),
    # Types that are not there.
    at(MOCO, "model.type", "TwoBranches", "'TwoBranches' is unknown; did you mean TwoBranch?"),
    at(MOCO, "model.objectives.0.type", "MoCoo", "'MoCoo' is unknown; did you mean MoCo?"),
    at(MOCO, "model.online.backbone.type", "ResNt", "'ResNt' is unknown; did you mean Res"),
    at(MOCO, "model.online.backbone.norm_cfg.type", "SynBN", "'SynBN' is unknown"),
    (
        MOCO,
        {"model.online.backbone": dict(type="timm.resnet17", _delete_=True)},
        "model.online.backbone.type: 'timm.res",
    ),
    at(MOCO, "views.0.photometric.1.type", "Greyscale", "'Greyscale' is unknown; did you"),
    at(MOCO, "train_dataloader.sampler.type", "KeySamplr", "'KeySamplr' is unknown; did"),
    at(MOCO, "train_dataloader.collate_fn.type", "densessl.collate_view", "'densessl."),
    at(MOCO, "optim_wrapper.optimizer.type", "SGDD", "'SGDD' is unknown; did you mean SGD"),
    at(MOCO, "optim_wrapper.constructor", "DenseConstructor", "'DenseConstructor' is unknown"),
    (MOCO, {"custom_hooks": [dict(type="EarlyStopping")]}, "custom_hooks.0.type: 'EarlyStopping' is unknown; did you"),
    (MOCO, {"custom_hooks": [dict(interval=3)]}, "custom_hooks.0.type: missing, expected the name of a class"),
    (
        MOCO,
        {"visualizer.vis_backends": [dict(type="JsonVisBackend")]},
        "visualizer.vis_backends.0.type: 'JsonVisBackend'",
    ),
    at(MOCO, "runner_type", "densessl.DenseRuner", "'densessl.DenseRuner' is unknown; did you mean densessl.Dense"),
    at(REGIONS, "regions.type", "RegionStor", "'RegionStor' is unknown; did you mean RegionStore?"),
    (
        LOCAL,
        {"model.objectives.1.correspondence": dict(type="Points")},
        "model.objectives.1.correspondence.type: 'Points",
    ),
    at(DETREG, "model.pretext.type", "DETRegg", "'DETRegg' is unknown; did you mean DETReg"),
    at(DETREG, "model.detector", "mmdet::detr/detr_r51", ""),
    at(RETINANET, "model.backbone.type", "ResNte", "'ResNte' is unknown; did you mean ResNet"),
    # Packages and modules that are not there.
    (
        MOCO,
        {"custom_imports": dict(imports=["no_such_module"])},
        "custom_imports.imports.0: found 'no_such_module', whi",
    ),
    (
        MOCO,
        {"custom_imports": dict(imports="densessl.nothing")},
        "custom_imports.imports: found 'densessl.nothing', wh",
    ),
    at(MOCO, "default_scope", "mmnothing", "'mmnothing' needs the package 'mmnothing', which is not ins"),
    at(MOCO, "model.online.backbone.type", "mmnothing.ResNet", "'mmnothing.ResNet' needs the"),
    # Types and ranges of values.
    at(MOCO, "train_cfg.max_epochs", -3, "found -3, expected a whole number (at least 1 or 'auto')"),
    at(MOCO, "train_cfg.max_epochs", 2.5, "found 2.5, expected a whole number"),
    at(MOCO, "train_cfg.max_epochs", "many", "found 'many', expected a whole number"),
    (
        MOCO,
        {"train_cfg.type": "EpochBasedTrainLoop"},
        "train_cfg.by_epoch: leave it out: the `type` of the loop decides",
    ),
    at(MOCO, "train_dataloader.batch_size", 0, "found 0, expected a whole number (at least"),
    at(MOCO, "train_dataloader.num_workers", -1, "found -1, expected a whole number (at"),
    at(MOCO, "train_dataloader.dataset.limit", 0, "found 0, expected a whole number"),
    at(MOCO, "train_dataloader.dataset.resample", "slow", "found 'slow', expected 'f"),
    at(MOCO, "optim_wrapper.optimizer.lr", -0.1, "found -0.1, expected a number (at least 0)"),
    at(MOCO, "optim_wrapper.optimizer.lr", float("nan"), "found nan, expected a number"),
    at(MOCO, "optim_wrapper.optimizer.lr", "fast", "found 'fast', expected a number"),
    at(MOCO, "optim_wrapper.optimizer.momentum", 1.1, "found 1.1, expected a number (0"),
    at(MOCO, "optim_wrapper.optimizer.weight_decay", -1, "found -1, expected"),
    at(LOCAL, "optim_wrapper.optimizer.lr", -1, "found -1, expected a number (at least 0)"),
    at(LOCAL, "optim_wrapper.optimizer.form", "lamb", "found 'lamb', expected 'lars' or"),
    at(RETINANET, "optim_wrapper.optimizer.lr", -1, "found -1, expected a number"),
    at(MOCO, "optim_wrapper.accumulative_counts", 0, "found 0, expected a whole"),
    at(MOCO, "optim_wrapper.precision", "bf17", "found 'bf17', expected 'auto' or 'bf16'"),
    (
        MOCO,
        {"optim_wrapper.clip_grad": dict(max_norm=-1)},
        "optim_wrapper.clip_grad.max_norm: found -1, expected a numb",
    ),
    at(MOCO, "optim_wrapper.paramwise_cfg.exclude", ("2d",), "found ('2d',), expec"),
    at(MOCO, "default_hooks.checkpoint.interval", 0, "found 0, expected a whole"),
    at(MOCO, "default_hooks.logger.interval", 0, "found 0, expected a whole number (at l"),
    at(MOCO, "default_hooks.export.to", "tim", "found 'tim', expected 'mmdet' or 'torchvision'"),
    at(MOCO, "default_hooks.lr.rule", "cubic", "found 'cubic', expected 'linear' or 'sqrt' or"),
    at(MOCO, "randomness.seed", -1, "found -1, expected a whole number (0 to 4,294,967,295) or None"),
    at(MOCO, "resume", "yes", "found 'yes', expected 'auto' or True or False"),
    at(MOCO, "work_dir", 3, "found 3, expected a word"),
    at(MOCO, "custom_hooks", dict(type="EMAHook"), "found {'type': 'EMAHook'}, expected a list"),
    at(MOCO, "model.objectives", 3, "found 3, expected a list, each entry a dict(type=…)"),
    at(MOCO, "model.objectives.0.temperature", 0, "found 0, expected a number (above 0)"),
    at(MOCO, "model.objectives.0.temperature", "hot", "found 'hot', expected a number"),
    at(MOCO, "model.objectives.0.dim", 128.5, "found 128.5, expected a whole number (at least 1)"),
    at(MOCO, "model.objectives.0.length", "large", "found 'large', expected a whole number"),
    at(MOCO, "model.objectives.0.dropout", 1.5, "found 1.5, expected a number (0 to 1)"),
    at(MOCO, "model.target.momentum", 1.2, "found 1.2, expected a number (0 to 1) or a dict"),
    at(LOCAL, "model.target.momentum.base", 1.2, "found 1.2, expected a number (0 to 1)"),
    at(MOCO, "model.target.kind", "emma", "found 'emma', expected 'ema' or 'stop_gradient' or 'froze"),
    at(MOCO, "model.data_preprocessor.std", (1, 2), "found (1, 2), expected a list of 3"),
    at(MOCO, "model.online.backbone.depth", 51, "found 51, expected 18 or 34 or 50 or 101"),
    at(MOCO, "model.online.backbone.out_indices", 4, "found 4, expected a list"),
    at(MOCO, "views.0.scale", (0.5, 3.0), "found (0.5, 3.0), expected a list of 2, each a number (0 to 1)"),
    at(MOCO, "views.0.scale", (0.9, 0.2), "found (0.9, 0.2), expected a list of 2, each a number (0 to 1)"),
    at(MOCO, "views.0.size", 0, "found 0, expected a whole number (at least 1)"),
    at(MOCO, "views.0.size", "big", "found 'big', expected a whole number (at least 1)"),
    at(MOCO, "views.0.hflip", 1.5, "found 1.5, expected a number (0 to 1)"),
    at(MOCO, "views.0.interpolation", "nearest", "found 'nearest', expected 'bilinear' or 'bic"),
    at(MOCO, "views.0.photometric.0.hue", 0.7, "found 0.7, expected a number (0 to 0.5)"),
    at(MOCO, "views.0.photometric.2.sigma", (2, 1), "found (2, 1), expected a list of 2"),
    at(DETREG, "photometric.0.p", 2, "found 2, expected a number (0 to 1)"),
    # What is missing.
    (
        MOCO,
        {"views.0.photometric.1": dict(type="Grayscale", _delete_=True)},
        "views.0.photometric.1.p: missing, expected a",
    ),
    at(MOCO, "default_hooks.step", None, "missing, a pretraining needs default_hooks=dict(step=dict("),
    (MOCO, {"default_hooks.lr": dict(type="StepHook", _delete_=True)}, "default_hooks.lr: missing, a pretrai"),
    (
        MOCO,
        {"default_hooks.export.type": "StepHook"},
        "default_hooks.export: missing, a pretraining needs default_hooks=",
    ),
    at(DETREG, "regions", None, "missing, RegionImages (train_dataloader.dataset) needs it"),
    # What does not fit together.
    at(MOCO, "default_hooks.lr.schedule.base", -1.0, "leave it out: the learning rate sta"),
    at(MOCO, "optim_wrapper.optimizer", dict(nesterov=True, momentum=0.0), "Nesterov momentum r"),
    at(MOCO, "model.objectives.0.weight", dict(type="switch", before=0, after=1), "schedule 's"),
    (MOCO, {"model.objectives.0.level": 4}, "model.objectives.0: level 4 is asked for, the backbone gives 2"),
    (
        MOCO,
        {"model.objectives.0.level": "neck.0"},
        "model.objectives.0: level 'neck.0' is asked for, the backbone gives",
    ),
    (
        PYRAMID,
        {"model.objectives.0.level": "cls.3"},
        "model.objectives.0: level 'cls.3' is asked for, the backbone gives",
    ),
    at(MOCO, "model.objectives.0.views", (0, 2), "view 2 is asked for; `views` gives 2, counted from 0"),
    (
        MOCO,
        {"views.0.repeat": 1},
        "model.objectives.0.views: view 1 is asked for; `views` gives 1, counted from 0 with `repeat` appl",
    ),
    (
        MOCO,
        {"model.objectives": [dict(type="MoCo"), dict(type="MoCo")]},
        "model.objectives.1.name: two objectives are na",
    ),
    (
        MOCO,
        {"model.online.head": dict(type="DenseHeadConvs")},
        "model.online: online.head is given without online.neck",
    ),
    (
        MOCO,
        {"model.online.backbone.out_indices": (3, 2)},
        "model.online: ResNet: out_indices=(3, 2), expected increasing",
    ),
    (PYRAMID, {"model.online.neck.start_level": 4}, "model.online: neck.start_level is 4, expected 0 to 3"),
    at(MOCO, "views.0.regions", dict(kept=0.6, at_least=1, tries=9), "needs the regions of the images"),
    (
        REGIONS,
        {"regions.uniforms": dict(jitter=39)},
        "model.objectives.1: expected regions.uniforms.jitter=4 * J for J",
    ),
    (
        REGIONS,
        {"model.objectives.1.levels": (0, 1)},
        "model.objectives.1: sizes=(48, 96, 192, 224) for levels=(0, 1), exp",
    ),
    (
        SIM,
        {"model.online.backbone.patch_size": 15},
        "model.online: ViT: image_size=96 and dim=192, expected a multiple of",
    ),
    at(SIM, "views.1.size", 100, "found 100x100 pixels, expected a multiple of 8 (model.online.backbone.pat"),
    at(SIM, "views.0.mask", None, "missing, model.objectives.0 masks this view"),
    (
        SIM,
        {"views.0.mask.patch_size": 16, "views.0.mask.hidden": 9, "views.0.mask.min_block": 4},
        "views.0.mask.patch_size: found 16, expected 8 (mode",
    ),
    (SIM, {"views.1.rotate": (-5, 5)}, "model.objectives.0: view 1 is rotated; expected shifts, sizes and flips only"),
    at(CROPS, "model.objectives.0.views", ((0, 1, 2), (3,)), "views (0, 1, 2) share a pass, ex"),
    (
        JITTER,
        {"views.1.uniforms": dict(jigsaw=26)},
        "model.objectives.0: view 2 needs uniforms=dict(jigsaw=27), found j",
    ),
    (SWAV, {"model.objectives.0.assign": (0, 9)}, "model.objectives.0: assign is (0, 9); expected some of its views"),
    (PASTE, {"model.objectives.0.cell": 100}, "model.objectives.0: view 0: "),
]
SEVERAL = {JITTER, SIM}  # where what is wrong with one view is wrong with the other, or with the network, too


@pytest.mark.parametrize(
    ("config", "options", "line"),
    [
        pytest.param(*row, id=row[2][:60], marks=[pytest.mark.det] if row[0] in (DETREG, RETINANET) else [])
        for row in WRONG
    ],
)
def test_what_is_wrong_is_told_in_a_line(config, options, line):
    problems = check_config(run_of(config, options), given=options)
    assert problems[0].startswith(line)
    assert len(problems) == 1 or config in SEVERAL, problems


def test_all_are_told_together_with_the_exit_code_of_settings():
    options = {"views.0.scale": (0.5, 3.0), "resum": True, "optim_wrapper.optimizer.lr": -1, "train_cfg.max_epochs": 0}
    with pytest.raises(SettingError) as caught:
        require(run_of(MOCO, options), given=options)
    lines = str(caught.value).splitlines()
    assert [line.partition(":")[0] for line in sorted(lines)] == sorted(options) and caught.value.exit_code == SETTINGS


def test_a_masked_view_needs_a_transformer():
    problems = check_config(run_of(SIM, {"model.online.backbone": dict(type="ResNet", _delete_=True)}))
    assert problems[0] == "views.0.mask: a masked view needs a transformer; model.online.backbone is a ResNet"


def test_an_objective_and_a_view_each_say_that_they_miss_the_regions():
    assert check_config(run_of(REGIONS, {"regions": None})) == [
        "views.0.regions: needs the regions of the images, but the config has no `regions`",
        "model.objectives.1: needs regions, but the config has no `regions`",
    ]


@pytest.mark.parametrize(
    "options",
    [
        {"train_dataloader.batch_size": "auto", "train_cfg.max_epochs": "auto", "model.objectives.0.length": "auto"},
        {"train_dataloader.num_workers": 0},
        {"views.0.size": (160, 96), "views.0.scale": [0.2, 1]},
        {"default_hooks.checkpoint.interval": -1},
        {"default_hooks.logger.priority": "LOW"},
        {"optim_wrapper.optimizer.lr": 1},
        {"optim_wrapper.optimizer": dict(type="AdamW", lr=1e-3, betas=(0.9, 0.95), _delete_=True)},
        {"optim_wrapper.optimizer": dict(type="torch.optim.SGD", lr=1e-3, _delete_=True)},
        {"optim_wrapper.clip_grad": dict(type="value", clip_value=1.0)},
        {"optim_wrapper.type": "densessl.DenseOptimWrapper"},
        {"model.objectives.0.weight": dict(type="linear", start=0, end=1, epochs=3)},
        {"model.online.backbone.init_cfg": None, "model.online.backbone.type": "timm.resnet18"},
        {"model.objectives.0.name": "contrast"},
        {"custom_hooks": [dict(type="EMAHook", momentum=0.001, update_buffers=True)]},
        {"custom_hooks": [dict(type="mmengine.EmptyCacheHook", after_epoch=True)]},
        {"compile": True, "resume": "auto", "load_from": "x.pth", "work_dir": "runs"},
    ],
    ids=lambda options: "+".join(options),
)
def test_what_is_right_is_let_through(options):
    assert check_config(run_of(MOCO, options), given=options) == []


def test_variables_of_a_file_are_no_options_and_slips_in_it_are_told():
    cfg = run_of(MOCO)
    cfg.jitter, cfg.learning_rate, cfg.train_dataloder = dict(p=1), 3, dict()
    assert check_config(cfg) == [
        "train_dataloder: unknown; did you mean train_dataloader or val_dataloader or test_dataloader?"
    ]
    assert len(check_config(cfg, given=["jitter.p"])) == 2
