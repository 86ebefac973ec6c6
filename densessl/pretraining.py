"""What settings change in a pretraining config."""

import argparse
import os
from pathlib import Path

from mmengine.config import Config

from densessl.data.demo import write_demo_photos
from densessl.errors import SettingError


def prepare_pretraining(cfg: Config, args: argparse.Namespace) -> None:
    """Change the config of a pretraining, in place, by the words that are for one."""
    for word in ("labels", "labels_seed", "steps", "evaluations"):
        if getattr(args, word) is not None:
            raise SettingError(
                f"--{word.replace('_', '-')} is for detectors' and segmentors' configs; {args.config} pretrains"
            )
    if args.regions and "regions" not in cfg:
        raise SettingError(f"--regions is for configs whose method looks at regions; {args.config} has no `regions`")
    if args.demo:
        cfg.merge_from_dict(dict(cfg.get("demo", {})))
        cfg.train_dataloader.dataset.source = str(write_demo_photos(Path(cfg.work_dir, "demo_photos")))
        cfg.train_dataloader.dataset.pop("root", None)
    if args.data_root:
        cfg.train_dataloader.dataset.source = args.data_root
    if args.regions:
        cfg.regions.path = args.regions


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


def workers(number: int | str) -> int:
    """Loader workers per process: ``"auto"`` is the cores of this machine over its processes, at most 16."""
    if number != "auto":
        return int(number)
    local = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return max(1, min(16, len(os.sched_getaffinity(0)) // local))
