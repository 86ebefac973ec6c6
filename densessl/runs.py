"""A run: the user's settings, the config that follows from them, and the runner that trains.

:func:`run_config` turns a :class:`densessl.run_settings.RunSettings` into a full config without reading data;
:func:`build_run` turns it into a runner that is ready to train.
"""

from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict
from mmengine.dist import is_distributed

from densessl import pretraining
from densessl.configs import is_pretraining, load_config
from densessl.engine.runner import DenseRunner
from densessl.errors import SettingError
from densessl.finetune.config import prepare as finetuning
from densessl.loaders import settle_workers
from densessl.overrides import apply_options
from densessl.preflight import check_folder, check_inputs, check_launcher
from densessl.run_settings import RunSettings
from densessl.settings import explain, origins_of, require
from densessl.settings.origins import overridden
from densessl.weights.read import NONE, open_init


def run_config(settings: RunSettings) -> Config:
    """Return the full config of a run, except for entries that depend on its data.

    Order matters: ``demo`` shrinks the config, ``options`` override all other settings, entries that follow from others
    (views of the preprocessor, workers, backend) are filled in next, and everything is checked at the end.

    Raises:
        DensesslError: a setting does not fit the config, or the config cannot be read.
    """
    cfg = load_config(settings.config)
    stem = Path(settings.config.split("::")[-1]).stem + ("_demo" if settings.demo else "")
    cfg.work_dir = settings.work_dir or cfg.get("work_dir") or str(Path("work_dirs", stem))
    cfg.launcher = settings.launcher
    change = pretraining.change_config if is_pretraining(cfg) else finetuning.change_config
    change(cfg, settings)
    if settings.seed is not None:
        cfg.randomness = {**(cfg.get("randomness") or {}), "seed": settings.seed}
    apply_options(cfg, settings.options)
    if settings.resume:
        cfg.resume = True
        cfg.load_from = None if settings.resume is True else settings.resume
    if is_pretraining(cfg):
        pretraining.complete_config(cfg)
    settle_workers(cfg)
    require(cfg, settings.options)
    if not torch.cuda.is_available():
        cfg.setdefault("env_cfg", ConfigDict())
        cfg.env_cfg["dist_cfg"] = dict(backend="gloo")
        wrapper = cfg.get("model_wrapper_cfg") or dict(type="mmengine.MMDistributedDataParallel")
        cfg.model_wrapper_cfg = dict(wrapper, device_ids=None)  # MMEngine's default is the local GPU
    return cfg


# Where the config has what a setting changes.
PLACES = {
    "data_root": "train_dataloader.dataset",
    "train_json": "train_dataloader.dataset",
    "val_json": "val_dataloader.dataset",
    "voc_root": "train_dataloader.dataset",
    "yolo_root": "train_dataloader.dataset",
    "work_dir": "work_dir",
    "seed": "randomness.seed",
    "batch_size": "train_dataloader.batch_size",
    "epochs": "train_cfg.max_epochs",
    "init": "default_hooks.init",
    "regions": "regions.path",
    "resume": "resume",
}


def explain_run(settings: RunSettings) -> str:
    """Every setting of a run on a line: value, where it comes from, and what it means; no data is looked for.

    Raises:
        DensesslError: as :func:`run_config`.
    """
    cfg = run_config(settings)
    given = [place for name, place in PLACES.items() if getattr(settings, name)]
    demo = dict(cfg.get("demo") or {}) if settings.demo else {}
    origins = overridden(origins_of(settings.config), demo, "--demo")
    return explain(cfg, overridden(origins, [*given, *settings.options], "command line"))


def build_run(settings: RunSettings) -> DenseRunner:
    """Build the runner of a run, with its model and its data set. ``runner.train()`` trains; ``runner.steps()`` trains
    one step at a time.

    Raises:
        DensesslError: settings, data or weights do not fit.
    """
    if not isinstance(settings, RunSettings):
        raise SettingError(f"settings: found {settings!r:.80}, expected RunSettings({settings!r:.80}, …)")
    cfg = run_config(settings)
    check_folder(cfg.work_dir)
    if is_pretraining(cfg):
        if settings.demo:
            pretraining.write_demo(cfg)
        lines = pretraining.settle_sizes(cfg)
        if settings.init and settings.init != NONE:
            open_init(settings.init)  # report a damaged file before anything is built
    else:
        lines = finetuning.read_data(cfg, settings)
    check_inputs(cfg)
    check_launcher(cfg.launcher)
    _init_gloo(cfg.launcher)
    runner = DenseRunner.from_cfg(cfg)
    for line in lines:
        runner.logger.info(line)
    return runner


def _init_gloo(launcher: str) -> None:
    """Start the process group of a run without GPUs. MMEngine's own function would select a CUDA device."""
    if launcher == "pytorch" and not torch.cuda.is_available() and not is_distributed():
        torch.distributed.init_process_group("gloo")
