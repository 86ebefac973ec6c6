"""What ``tools/train.py`` does: a config and a few words of the command line become a run."""

import argparse
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.dist import is_distributed
from mmengine.logging import print_log

from densessl.compat.stock_configs import MissingPackage, read_config
from densessl.data.demo import write_demo_photos
from densessl.engine.runner import DenseRunner


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
    parser.add_argument("--init", metavar="FILE", help="pretraining: start from the backbone in this file")
    parser.add_argument("--regions", metavar="STORE", help="pretraining: store of regions, made by tools/regions.py")
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


def load_config(name: str) -> Config:
    """A config by file name, or ``package::path`` for one that an installed package carries.

    Raises:
        FileNotFoundError: naming the files beside the missing one.
        MissingPackage: the config, or its ``_base_``, is of a package that is not installed.
    """
    if "::" not in name and not Path(name).is_file():
        folder = Path(name).parent
        near = sorted(path.name for path in folder.glob("*.py")) if folder.is_dir() else []
        raise FileNotFoundError(f"no config at {name}; {folder} holds {near or 'none'}")
    return read_config(name)


def prepare(args: argparse.Namespace) -> Config:
    """The full config of a run.

    Order matters: ``--demo`` shrinks the config, ``--cfg-options`` have the last word, and what follows from other
    entries (views of the preprocessor, workers, backend) is resolved at the end.
    """
    cfg = load_config(args.config)
    stem = Path(args.config.split("::")[-1]).stem + ("_demo" if args.demo else "")
    cfg.work_dir = args.work_dir or cfg.get("work_dir") or str(Path("work_dirs", stem))
    cfg.launcher = args.launcher
    pretraining = is_pretraining(cfg)
    if args.demo:
        if not pretraining:
            raise ValueError(f"--demo is for pretraining configs; {args.config} has neither `views` nor `view`")
        cfg.merge_from_dict(dict(cfg.get("demo", {})))
        cfg.train_dataloader.dataset.source = str(write_demo_photos(Path(cfg.work_dir, "demo_photos")))
        cfg.train_dataloader.dataset.pop("root", None)
    if args.data_root:
        set_data_root(cfg, args.data_root)
    cfg.merge_from_dict(args.cfg_options)
    if args.init:
        if not pretraining:
            raise ValueError("--init is for pretraining configs; a detector's backbone is its LoadBackboneHook's")
        cfg.custom_hooks = [dict(type="InitBackboneHook", checkpoint=args.init), *cfg.get("custom_hooks", [])]
    if args.regions:
        if "regions" not in cfg:
            raise ValueError(f"--regions is for configs whose method looks at regions; {args.config} has no `regions`")
        cfg.regions.path = args.regions
    if args.resume:
        cfg.resume = True
        cfg.load_from = None if args.resume == "auto" else args.resume
    if pretraining:
        link_views(cfg)
        cfg.train_dataloader.num_workers = workers(cfg.train_dataloader.get("num_workers", "auto"))
        cfg.train_dataloader.persistent_workers = cfg.train_dataloader.num_workers > 0
        cfg.train_dataloader.pin_memory = torch.cuda.is_available()
    else:
        imports = cfg.get("custom_imports") or dict(imports=[], allow_failed_imports=False)
        imports["imports"] = [*imports["imports"], "densessl.compat"]
        cfg.custom_imports = imports
    if not torch.cuda.is_available():
        cfg.setdefault("env_cfg", ConfigDict())
        cfg.env_cfg["dist_cfg"] = dict(backend="gloo")
        wrapper = cfg.get("model_wrapper_cfg") or dict(type="mmengine.MMDistributedDataParallel")
        cfg.model_wrapper_cfg = dict(wrapper, device_ids=None)  # MMEngine's default is the local GPU
    return cfg


def is_pretraining(cfg: Config) -> bool:
    """Whether a config is one of ours: it says what ``views`` of images it wants, or what ``view`` a detector."""
    return "views" in cfg or "view" in cfg


def link_views(cfg: Config) -> None:
    """Give data set and preprocessor the config's ``views``, or its ``view`` and the ``photometric`` ops of patches,
    and the data set its ``regions``: ``--cfg-options`` may have changed them."""
    dataset, preprocessor = cfg.train_dataloader.dataset, cfg.model.data_preprocessor
    if "regions" in cfg:
        dataset.regions = cfg.regions
    if "views" in cfg:
        dataset.views = preprocessor.views = cfg.views
    else:
        dataset.view = cfg.view
        dataset.photometric = preprocessor.photometric = cfg.photometric


def set_data_root(cfg: Config, root: str) -> None:
    """Point every data set of the config at ``root``.

    In a pretraining config that is the ``source``. In a detector's config, every ``data_root`` is replaced, and in
    evaluators the paths that began with the old one.
    """
    if is_pretraining(cfg):
        cfg.train_dataloader.dataset.source = root
        return
    old = cfg.get("data_root")

    def replace(node):
        if isinstance(node, dict):
            for key, value in node.items():
                if key == "data_root" and isinstance(value, str):
                    node[key] = os.path.join(root, "")
                elif isinstance(value, str) and old and value.startswith(old):
                    node[key] = os.path.join(root, value[len(old) :].lstrip("/"))
                else:
                    replace(value)
        elif isinstance(node, list | tuple):
            for value in node:
                replace(value)

    replace(cfg._cfg_dict)


def workers(number: int | str) -> int:
    """Loader workers per process: ``"auto"`` is the cores of this machine over its processes, at most 16."""
    if number != "auto":
        return int(number)
    local = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return max(1, min(16, len(os.sched_getaffinity(0)) // local))


def init_gloo(launcher: str) -> None:
    """Start the process group of a run without GPUs: MMEngine's own start would select a CUDA device."""
    if launcher == "pytorch" and not torch.cuda.is_available() and not is_distributed():
        torch.distributed.init_process_group("gloo")


def main(argv: Sequence[str] | None = None) -> int:
    """Run. Returns the exit code: 0 done, 2 where config or data are not where they were said to be."""
    args = parser().parse_args(argv)
    try:
        cfg = prepare(args)
        init_gloo(args.launcher)
        DenseRunner.from_cfg(cfg).train()
    except (FileNotFoundError, MissingPackage) as error:  # DataNotFound is one
        print_log(f"{type(error).__name__}: {error}", level=logging.ERROR)
        return 2
    return 0
