"""What ``tools/train.py`` does: a config and a few words of the command line become a run."""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.dist import is_distributed
from mmengine.logging import print_log

from densessl.configs import is_pretraining, load_config
from densessl.engine.runner import DenseRunner
from densessl.errors import CheckpointError, ExportError, LoadError, MissingPackage, SettingError
from densessl.finetune.config import prepare as finetune
from densessl.finetune.config.prepare import prepare_transfer
from densessl.pretraining import link_views, prepare_pretraining, workers
from densessl.weights.read import NONE, open_init


def parser() -> argparse.ArgumentParser:
    """The command line of ``tools/train.py``."""
    parser = argparse.ArgumentParser(
        description="Pretrain a backbone on unlabelled images, or train a detector: anything a config describes."
    )
    parser.add_argument("config", help="config file, or the name of a stock config: mmdet::retinanet/…, mmseg::fcn/…")
    parser.add_argument(
        "--data-root",
        help="folder of images (searched recursively), list file or COCO json; for a detector's config its data_root",
    )
    parser.add_argument(
        "--demo",
        action="store_true",
        help="a short run on built-in photos: same model and objective, less data, batch and schedule",
    )
    parser.add_argument("--work-dir", help="where logs and checkpoints go (default: work_dirs/<config name>)")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        help="continue from the last checkpoint of the work dir, or from the given one",
    )
    parser.add_argument(
        "--init",
        metavar="FILE",
        help="start from the weights in this file, whichever code wrote it; 'none': from random numbers",
    )
    parser.add_argument("--seed", type=int, help="of all random numbers of the run (randomness.seed)")
    parser.add_argument("--regions", metavar="STORE", help="pretraining: store of regions, made by tools/regions.py")
    detector = parser.add_argument_group("detectors and segmentors")
    detector.add_argument("--labels", help="a part of the train set: 1%%, 10%%, 30-shot (boxes a class), 100-images")
    detector.add_argument("--labels-seed", type=int, metavar="SEED", help="which part of that size (default: 0)")
    detector.add_argument("--steps", type=int, metavar="N", help="the config's schedule in so many optimiser steps")
    detector.add_argument("--evaluations", type=int, metavar="K", help="of a run of --steps, evenly spread (default 1)")
    parser.add_argument("--launcher", choices=("none", "pytorch", "slurm"), default="none")
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=DictAction,
        default={},
        metavar="KEY=VALUE",
        help="override entries of the config: train_dataloader.batch_size=64 views.0.size=160",
    )
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)
    return parser


def prepare(args: argparse.Namespace) -> Config:
    """The full config of a run, as far as it can be told without its data.

    Order matters: ``--demo`` shrinks the config, ``--cfg-options`` have the last word, and what follows from other
    entries (views of the preprocessor, workers, backend) is resolved at the end.

    Raises:
        SettingError: a word of the command line does not go with the config.
    """
    cfg = load_config(args.config)
    stem = Path(args.config.split("::")[-1]).stem + ("_demo" if args.demo else "")
    cfg.work_dir = args.work_dir or cfg.get("work_dir") or str(Path("work_dirs", stem))
    cfg.launcher = args.launcher
    pretraining = is_pretraining(cfg)
    if pretraining:
        prepare_pretraining(cfg, args)
    else:
        prepare_transfer(cfg, args)
    if args.seed is not None:
        cfg.randomness = {**(cfg.get("randomness") or {}), "seed": args.seed}
    try:
        cfg.merge_from_dict(args.cfg_options)
    except (KeyError, TypeError) as error:  # a place in a list that it has not, an entry of what is no dict
        raise SettingError(f"--cfg-options: {error}") from error
    if args.resume:
        cfg.resume = True
        cfg.load_from = None if args.resume == "auto" else args.resume
    if pretraining:
        if args.init and args.init != "none":
            cfg.merge_from_dict({"default_hooks.init": dict(type="InitHook", checkpoint=args.init)})
        link_views(cfg)
        cfg.train_dataloader.num_workers = workers(cfg.train_dataloader.get("num_workers", "auto"))
        cfg.train_dataloader.persistent_workers = cfg.train_dataloader.num_workers > 0
        cfg.train_dataloader.pin_memory = torch.cuda.is_available()
    if not torch.cuda.is_available():
        cfg.setdefault("env_cfg", ConfigDict())
        cfg.env_cfg["dist_cfg"] = dict(backend="gloo")
        wrapper = cfg.get("model_wrapper_cfg") or dict(type="mmengine.MMDistributedDataParallel")
        cfg.model_wrapper_cfg = dict(wrapper, device_ids=None)  # MMEngine's default is the local GPU
    return cfg


def init_gloo(launcher: str) -> None:
    """Start the process group of a run without GPUs: MMEngine's own start would select a CUDA device."""
    if launcher == "pytorch" and not torch.cuda.is_available() and not is_distributed():
        torch.distributed.init_process_group("gloo")


def main(argv: Sequence[str] | None = None) -> int:
    """Run. Returns the exit code: 0 done, 2 where anything in config, data or weights does not fit, which the message
    says without a traceback."""
    args = parser().parse_args(argv)
    try:
        cfg = prepare(args)
        said = complete(cfg, args)
        init_gloo(args.launcher)
        runner = DenseRunner.from_cfg(cfg)
        for line in said:
            runner.logger.info(line)
        runner.train()
    except misfits() as error:
        print_log(f"{type(error).__name__}: {error}", level=logging.ERROR)
        return 2
    return 0


def complete(cfg: Config, args: argparse.Namespace) -> list[str]:
    """What of a config needs files (:func:`densessl.finetune.config.prepare.complete`). Returns lines for the log."""
    if not is_pretraining(cfg):
        return finetune.complete(cfg, args)
    if args.init and args.init != NONE:
        open_init(args.init)  # a damaged file is told before the data is read
    return []


def misfits() -> tuple[type[Exception], ...]:
    """What is raised where config, data or weights do not fit; DataNotFound is a FileNotFoundError."""
    return FileNotFoundError, MissingPackage, SettingError, CheckpointError, ExportError, LoadError
