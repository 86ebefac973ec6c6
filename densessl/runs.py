"""A run: what a user asks for, the config that follows from it, and the runner that carries it out.

``RunSettings`` is what the command line, a notebook or a comparison asks for. :func:`run_config` turns it into a full
config without looking at data, :func:`build_run` into a runner that is ready to train.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

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
from densessl.weights.read import NONE, open_init


@dataclass(frozen=True)
class RunSettings:
    """What one run is asked for: a config, and what the user changes in it.

    Attributes:
        config: file, name of a shipped config (``pixpro_r18``, ``transfer/coco/mask-rcnn_r50_fpn_1x``), or of a stock
            one (``mmdet::retinanet/retinanet_r50_fpn_1x_coco``).
        data_root: folder of images, list file or COCO json to pretrain on; of a detector's config its ``data_root``.
        demo: a short run on built-in photos.
        work_dir: where logs and checkpoints go; by default ``work_dirs/<name of the config>``.
        resume: go on from the last checkpoint of the work folder (True), or from a file.
        init: file with the weights to start from; ``"none"`` for random numbers; None for what the config says.
        seed: of all random numbers of the run; None for the config's.
        batch_size: images per process and iteration; ``"auto"``: the config's, or fewer where there are fewer images.
        epochs: of a pretraining; ``"auto"`` for a number that suits the size of the data set.
        regions: store of regions to pretrain on.
        labels, labels_seed: part of a detector's train set (``"10%"``, ``"30-shot"``), and which one of that size.
        steps, evaluations: length of a detector's training in optimiser steps, and how often it is evaluated.
        launcher: what started the processes.
        options: further entries of the config by dotted name; they have the last word.

    Raises:
        SettingError: a number is out of range.
    """

    config: str
    data_root: str | None = None
    demo: bool = False
    work_dir: str | None = None
    resume: bool | str = False
    init: str | None = None
    seed: int | None = None
    batch_size: int | Literal["auto"] | None = None
    epochs: int | Literal["auto"] | None = None
    regions: str | None = None
    labels: str | None = None
    labels_seed: int | None = None
    steps: int | None = None
    evaluations: int | None = None
    launcher: Literal["none", "pytorch", "slurm"] = "none"
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        wrong = [
            f"--{name.replace('_', '-')}: found {value!r}, expected a whole number of at least {least}{more}"
            for name, least, more in (
                ("seed", 0, ""),
                ("batch_size", 1, " or 'auto'"),
                ("epochs", 1, " or 'auto'"),
                ("labels_seed", 0, ""),
                ("steps", 1, ""),
                ("evaluations", 1, ""),
            )
            if (value := getattr(self, name)) is not None
            and not (value == "auto" and more)
            and (type(value) is not int or value < least)
        ]
        if wrong:
            raise SettingError("\n".join(wrong))


def run_config(settings: RunSettings) -> Config:
    """The full config of a run, as far as it can be told without its data.

    Order matters: ``demo`` shrinks the config, ``options`` have the last word, and what follows from other entries
    (views of the preprocessor, workers, backend) is resolved at the end.

    Raises:
        DensesslError: a setting does not go with the config, or the config cannot be read.
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
    if not torch.cuda.is_available():
        cfg.setdefault("env_cfg", ConfigDict())
        cfg.env_cfg["dist_cfg"] = dict(backend="gloo")
        wrapper = cfg.get("model_wrapper_cfg") or dict(type="mmengine.MMDistributedDataParallel")
        cfg.model_wrapper_cfg = dict(wrapper, device_ids=None)  # MMEngine's default is the local GPU
    return cfg


def build_run(settings: RunSettings) -> DenseRunner:
    """The runner of a run, its model built and its data found: ``runner.train()`` trains, ``runner.steps()`` trains one
    step at a time.

    Raises:
        DensesslError: settings, data or weights do not fit; the message says all there is to know.
    """
    cfg = run_config(settings)
    if is_pretraining(cfg):
        lines = pretraining.settle_sizes(cfg)
        if settings.init and settings.init != NONE:
            open_init(settings.init)  # a damaged file is told before anything is built
    else:
        lines = finetuning.read_data(cfg, settings)
    _init_gloo(settings.launcher)
    runner = DenseRunner.from_cfg(cfg)
    for line in lines:
        runner.logger.info(line)
    return runner


def _init_gloo(launcher: str) -> None:
    """Start the process group of a run without GPUs: MMEngine's own start would select a CUDA device."""
    if launcher == "pytorch" and not torch.cuda.is_available() and not is_distributed():
        torch.distributed.init_process_group("gloo")
