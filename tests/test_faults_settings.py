"""Wrong settings of a pretraining: told before anything is looked for, all at once, by key path."""

import pytest

from tests.faults import expect, rows

UNKNOWN = """
    learning_rate=3 | learning_rate: unknown
    resum=True | resum: unknown; did you mean resume\\?
    modle.type=TwoBranch | modle: unknown; did you mean model\\?
    model.online.nekc.type=FPN | model.online.nekc: unknown; did you mean neck\\?
    env_cfg.cudnn_benchmarkk=True | env_cfg.cudnn_benchmarkk: unknown; did you mean cudnn_benchmark\\?
    default_hooks.checkpoint.intervall=1 | default_hooks.checkpoint.intervall: unknown; did you mean interval\\?
    default_hooks.chekpoint.interval=1 | default_hooks.chekpoint
    train_dataloader.shufle=True | train_dataloader.shufle: unknown; did you mean shuffle\\?
    views.0.szie=32 | views.0.szie: unknown; did you mean size\\?
    model.objectives.0.temprature=1 | model.objectives.0.temprature: unknown
    model.objectives.0.type=PixPrro | model.objectives.0.type: 'PixPrro' is unknown; did you mean PixPro\\?
    model.online.backbone.type=ResNett | model.online.backbone.type: 'ResNett' is unknown; did you mean ResNet
    model.online.backbone.type=mmdet.ResNett | model.online.backbone.type: 'mmdet.ResNett' is unknown.*ResNet
    views.0.photometric.0.type=ColourJitter | views.0.photometric.0.type: 'ColourJitter' is unknown.*ColorJitter
    optim_wrapper.optimizer.type=SDG | optim_wrapper.optimizer.type: 'SDG' is unknown; did you mean SGD\\?
    optim_wrapper.type=OptimWrapperr | optim_wrapper.type: 'OptimWrapperr' is unknown; did you mean OptimWrapper
    default_hooks.lr.schedule.type=cosin | default_hooks.lr.schedule.type: 'cosin' is unknown
    train_dataloader.dataset.type=ImageFolder | train_dataloader.dataset.type: 'ImageFolder' is unknown
    runner_type=Runnner | runner_type: 'Runnner' is unknown; did you mean Runner
    default_scope=nosuch | default_scope: .*nosuch
    model.objectives.3.dim=8 | model.objectives.3.dim: model.objectives has 1 entry: expected 0
    custom_hooks.1.schedule.base=-1.0 | custom_hooks.1.schedule.base: .*optim_wrapper.optimizer.lr
"""
RANGES = """
    views.0.scale=(0.5,3.0) | views.0.scale: found \\(0.5, 3.0\\), expected a list of 2, each a number \\(0 to 1\\)
    views.0.ratio=(2,1) | views.0.ratio: found \\(2, 1\\), expected .* in ascending order
    views.0.size=0 | views.0.size: found 0, expected a whole number \\(at least 1\\)
    views.0.photometric.0.p=3 | views.0.photometric.0.p: found 3, expected a number \\(0 to 1\\)
    train_cfg.max_epochs=-3 | train_cfg.max_epochs: found -3, expected a whole number \\(at least 1 or 'auto'\\)
    train_dataloader.batch_size=0 | train_dataloader.batch_size: found 0, expected a whole number \\(at least 1
    train_dataloader.num_workers=-1 | train_dataloader.num_workers: found -1
    train_dataloader.num_workers=two | train_dataloader.num_workers: found 'two', expected a whole number
    optim_wrapper.optimizer.lr=-1 | optim_wrapper.optimizer.lr: found -1, expected a number \\(at least 0\\)
    optim_wrapper.optimizer.momentum=1.5 | optim_wrapper.optimizer.momentum: found 1.5, expected a number \\(0 to 1\\)
    optim_wrapper.accumulative_counts=0 | optim_wrapper.accumulative_counts: found 0
    optim_wrapper.precision=fp8 | optim_wrapper.precision: found 'fp8', expected 'auto' or 'bf16'
    optim_wrapper.clip_grad.type=per_parameter | optim_wrapper.clip_grad.max_norm: missing
    default_hooks.lr.schedule.warmup_epochs=-1 | default_hooks.lr.schedule.warmup_epochs: found -1
    default_hooks.lr.rule=cubic | default_hooks.lr.rule: found 'cubic', expected 'linear' or 'sqrt' or 'none'
    model.target.kind=emma | model.target.kind: found 'emma', expected 'ema'
    model.target.momentum.base=2 | model.target.momentum.base: found 2, expected a number \\(0 to 1\\)
    model.online.backbone.depth=19 | model.online.backbone.depth: found 19, expected 18 or 34
    model.online.backbone.depth=eighteen | model.online.backbone.depth: found 'eighteen'
    model.data_preprocessor.std=(0,0,0) | model.data_preprocessor.std: found \\(0, 0, 0\\)
    randomness.seed=x | randomness.seed: found 'x'
    randomness.seed=99999999999 | randomness.seed: found 99999999999, expected a whole number \\(0 to 4.*\\)
    default_hooks.step.priority=VERY_HIGHH | default_hooks.step.priority: found 'VERY_HIGHH', expected .*'VERY_HIGH'
    launcher=mpi | launcher: found 'mpi', expected 'none' or 'pytorch' or 'slurm'
    activation_checkpointing=3 | activation_checkpointing: found 3, expected a list
    efficient_conv_bn_eval=3 | efficient_conv_bn_eval: found 3, expected a list
    env_cfg.dist_cfg.backend=mpi | env_cfg.dist_cfg.backend: found 'mpi', expected 'nccl' or 'gloo'
    default_hooks.lr.schedule.warmup=1 | default_hooks.lr.schedule.warmup: unknown; .*valid for warmup_cosine: by_epoch
    views.*.scale=(0,0) | views.0.scale: found \\(0, 0\\), expected a largest share above 0
    views.*.size=1 | views.0.size: found 1x1 pixels, expected more than 8, the radius of GaussianBlur's kernel
    log_level=LOUD | log_level: found 'LOUD', expected 'DEBUG' or 'INFO'
    work_dir=3 | work_dir: found 3
"""
TOGETHER = """
    model=None | model: missing, expected a dict
    model=3 | model: found 3, expected a dict
    train_dataloader=None | train_dataloader: missing, expected a dict
    train_cfg=None | train_cfg: missing, expected a dict
    optim_wrapper=None train_cfg=3 | (?s)train_cfg: found 3.*optim_wrapper: missing
    views=3 | views: found 3, expected a list
    default_hooks.lr=None | default_hooks.lr: .*LRHook
    default_hooks.step=None | default_hooks.step: .*StepHook
    default_hooks.export=None | default_hooks.export: .*ExportHook
    model.objectives.0.level=9 | model.objectives.0: .*level 9 is asked for, the backbone gives 1
    model.objectives.0.level=neck.0 | model.objectives.0: .*level 'neck.0' is asked for
    model.objectives.0.views=(0,7) | model.objectives.0.views: view 7 is asked for
    model.objectives=[] | model.objectives: found none, expected at least one
    model.objectives.0.name=a.b | model.objectives.0: name: found 'a.b', expected a name without dots
    model.objectives.0.weight=dict(type='linear',strat=0,end=1) | model.objectives.0.weight.strat: unknown.*start
    model.objectives=[dict(type='MoCo',lenght=2)] | model.objectives.0.lenght: unknown; did you mean length
    param_scheduler.type=CosineAnnealingLR | param_scheduler: is not used in a pretraining
    demo=3 | demo: found 3, expected a dict
    default_hooks.checkpoint.save_best=loss | save_best: found 'loss', expected None: the config has no validation
    train_dataloader.collate_fn.type=pseudo_collate | collate_fn: found 'pseudo_collate', .*densessl.collate_views
    optim_wrapper.optimizer.type=Adam | optimizer.momentum: unknown for Adam \\(valid: amsgrad, betas.*_delete_=True
    visualizer.vis_backends.0.type=NeptuneVisBackend | NeptuneVisBackend needs the package 'neptune', which is not
    val_cfg.type=ValLoop | (?s)val_dataloader: missing, val_cfg needs it.*val_evaluator: missing, val_cfg needs it
    custom_imports.imports=[no_such_module] | custom_imports.imports.0: found 'no_such_module', which cannot be imported
    custom_imports.imports=[broken] | custom_imports.imports.0: found 'broken', .* SyntaxError
    custom_imports.imports=[divides] | custom_imports.imports.0: found 'divides', .* ZeroDivisionError
    model.online.backbone.type=no_such_package.Net | type: 'no_such_package.Net' needs the package 'no_such_package'
    learning_rate=3 views.0.szie=3 train_cfg.max_epochs=-3 | (?s)(?=.*learning_rate)(?=.*szie)(?=.*max_epochs)
    model.objectives.0.temprature=1 optim_wrapper.optimizer.lr=-1 | (?s)(?=.*temprature)(?=.*optimizer.lr)
"""


@pytest.fixture(autouse=True)
def in_room(fault_room, monkeypatch):
    monkeypatch.chdir(fault_room)
    monkeypatch.syspath_prepend(str(fault_room))


@pytest.mark.parametrize(("options", "said"), rows(UNKNOWN + RANGES + TOGETHER))
def test_settings_are_refused_by_key_path(options, said, fault_room, capsys):
    expect(fault_room, f"TINY --set {options.replace('(', chr(39) + '(').replace(')', ')' + chr(39))}", said, capsys)


def test_fp16_needs_a_gpu(fault_room, capsys, monkeypatch):
    monkeypatch.setattr("densessl.preflight.get_device", lambda: "cpu")
    said = "optim_wrapper.precision: found 'fp16', which needs a CUDA device"
    expect(fault_room, "TINY --set optim_wrapper.precision=fp16", said, capsys)


def test_regions_wanted_and_none_configured(fault_room, capsys):
    said = "views.0.regions: needs the regions of the images, but the config has no `regions`"
    expect(fault_room, "train regions.py --data-root photos --set regions=None", said, capsys)
