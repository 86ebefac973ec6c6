"""Settings of data loaders that follow from other settings."""

import os

from mmengine.config import Config

AUTO = "auto"
LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")


def settle_workers(cfg: Config) -> None:
    """Set the number of workers of all loaders of a config, in place.

    ``num_workers="auto"`` becomes a number. Without workers (``num_workers=0``, as in a debugger), the settings that
    PyTorch allows with workers only are removed: ``persistent_workers``, ``prefetch_factor``, ``timeout``.
    """
    for name in LOADERS:
        loader = cfg.get(name)
        if not loader:
            continue
        number = loader.get("num_workers", 0)
        loader.num_workers = workers() if number == AUTO else number  # whatever else it is, the check of settings sees
        if loader.num_workers == 0:
            loader.persistent_workers = False
            for key in ("prefetch_factor", "timeout"):
                loader.pop(key, None)


def workers() -> int:
    """What ``"auto"`` stands for: the number of cores divided by the processes on this machine, at most 16."""
    local = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return max(1, min(16, len(os.sched_getaffinity(0)) // local))
