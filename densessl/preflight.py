"""What a run reads and writes, looked at before anything is written: a run that cannot begin leaves nothing behind."""

import os
from itertools import islice
from pathlib import Path

from mmengine.config import Config
from mmengine.device import get_device
from torch import device

from densessl.configs import is_pretraining
from densessl.data.sources import ImageList
from densessl.engine.precision import resolve_precision
from densessl.errors import SettingError
from densessl.pretraining import images_of
from densessl.regions.store import RegionStore
from densessl.regions.store_format import StoreMissing
from densessl.registry import REGIONS
from densessl.sizes import few_images, processes
from densessl.weights.io.checkpoints import checkpoint_to_resume, load_content, read_checkpoint
from densessl.wording import count

# What a launcher tells each of its processes, and how to start them.
STARTED = {
    "pytorch": ("RANK", "start the processes with torchrun --nproc-per-node=N, or leave --launcher out"),
    "slurm": ("SLURM_PROCID", "start the processes with srun, or leave --launcher out"),
}
LOOKED_UP = 8  # images of the data set that a store of regions has to have


def check_inputs(cfg: Config) -> None:
    """Look for images, regions and weights of a run whose settings are checked and whose sizes are settled.

    No image is read, and of a folder no more files are listed than one step takes.

    Raises:
        DensesslError: something is missing, damaged or too little; the message says what.
    """
    check_precision(cfg.get("optim_wrapper") or {})
    check_weights(cfg)
    if is_pretraining(cfg):
        images = check_images(cfg)
        if images is not None:
            check_regions(cfg.train_dataloader.dataset, images)


def check_folder(folder: str) -> None:
    """Nothing, if a work folder is there or can be made. Raises SettingError."""
    path = Path(folder).absolute()
    there = next(each for each in (path, *path.parents) if each.exists())
    if not there.is_dir():
        raise SettingError(f"--work-dir: {folder} is no folder and cannot be one, since {there} is a file")
    if not os.access(there, os.W_OK):
        raise SettingError(f"--work-dir: {folder} cannot be written, since {there} does not allow it")


def check_launcher(launcher: str) -> None:
    """Nothing, if this process was started by its launcher. Raises SettingError."""
    variable, how = STARTED.get(launcher, (None, ""))
    if variable and variable not in os.environ:
        raise SettingError(f"launcher: found {launcher!r}, but {variable} is not in the environment; {how}")


def check_precision(wrapper: Config) -> None:
    if "precision" in wrapper:
        resolve_precision(wrapper["precision"], device(get_device()))


def check_weights(cfg: Config) -> None:
    """The file that a run starts or goes on from, read once as it will be."""
    resumed = checkpoint_to_resume(cfg.get("resume", False), cfg.get("load_from"), cfg.work_dir)
    if resumed is not None:
        read_checkpoint(resumed)
    elif cfg.get("load_from") is not None:
        load_content(cfg.load_from)


def check_images(cfg: Config) -> ImageList | None:
    """The first images of the data set; None of one that is not of unlabelled images.

    Raises:
        DensesslError: there is none, or there are too few for one batch on every process.
    """
    loader = cfg.train_dataloader
    if "source" not in loader.dataset:
        return None
    at_once = processes(cfg.get("launcher", "none"))
    batch = loader.get("batch_size") or 1
    whole = not loader.get("drop_last") and "objectives" in cfg.model  # the size of the last batch matters
    listed = images_of(cfg, most=None if whole else max(batch * at_once, LOOKED_UP))
    images = min(len(listed.paths), loader.dataset.get("limit") or len(listed.paths))
    if loader.get("drop_last") and images < batch * at_once:
        raise few_images(images, batch, at_once)
    if whole and images // at_once % batch == 1 and batch > 1:
        raise SettingError(
            f"train_dataloader.drop_last: found False with {count(images, 'image')} in batches of {batch}: the last "
            "batch of an epoch has a single image, of which batch norm takes no statistics. Leave drop_last=True, or "
            "choose another --batch-size"
        )
    return listed


def check_regions(dataset: Config, images: ImageList) -> None:
    """The source of regions is there, and a store is that of these images."""
    try:
        source = REGIONS.build(dataset.regions) if dataset.get("regions") else None
    except StoreMissing as error:
        more = ", and say where it is with --regions FOLDER"
        raise StoreMissing(error.folder, error.reason, str(dataset.source), more) from error
    if isinstance(source, RegionStore):
        for path in islice(images.paths, LOOKED_UP):
            source.require(path, images.root)
