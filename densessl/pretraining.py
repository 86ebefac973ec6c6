"""Apply the settings of a run to a pretraining config."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from densessl.constraints import AUTO
from densessl.data.demo import write_demo_photos
from densessl.data.sources import ImageList, list_images, remedies
from densessl.errors import SettingError
from densessl.run_settings import OWN_DATA, RunSettings
from densessl.sizes import SETTLED, fitting_batch, fitting_epochs, fitting_queue, processes
from densessl.weights.io.checkpoints import checkpoint_to_resume, read_checkpoint
from densessl.weights.read import NONE
from densessl.wording import count

QUEUES = ("length", "queue_length")  # arguments of objectives that may be "auto"
LENGTHS = ("train_cfg", "optim_wrapper")


def change_config(cfg: Config, settings: RunSettings) -> None:
    """Apply all settings except ``options`` to a pretraining config, in place.

    Raises:
        SettingError: a setting is for other kinds of config.
    """
    for name in ("labels", "labels_seed", "steps", "evaluations", *OWN_DATA, "classes", "boxes_as_masks"):
        if getattr(settings, name) not in (None, False):
            raise SettingError(
                f"--{name.replace('_', '-')} is for detectors' and segmentors' configs; {settings.config} pretrains"
            )
    if settings.regions and "regions" not in cfg:
        raise SettingError(
            f"--regions is for configs whose method looks at regions; {settings.config} has no `regions`"
        )
    require_parts(cfg)
    late = [name for name in settings.options if name.partition(".")[0] == "demo"] if settings.demo else []
    if late:
        raise SettingError(
            f"{late[0]}: --demo has made its changes before this one; change the entry itself, such as "
            "--set train_cfg.max_epochs=2"
        )
    if settings.demo:
        cfg.merge_from_dict(dict(cfg.get("demo", {})))
    loader = cfg.train_dataloader  # read after the merge, which replaces entries
    if settings.demo:
        loader.dataset.source = str(demo_photos(cfg))
        loader.dataset.pop("root", None)
    if settings.data_root:
        loader.dataset.source = settings.data_root
    if settings.bad_images is not None:
        cfg.merge_from_dict({"default_hooks.bad_images": dict(type="BadImagesHook", budget=settings.bad_images)})
    if settings.regions:
        cfg.regions.path = settings.regions
    if settings.batch_size is not None:
        if settings.batch_size == AUTO:
            loader.largest_batch = loader.batch_size  # settle_sizes takes it out again
        loader.batch_size = settings.batch_size
    if settings.epochs is not None:
        cfg.train_cfg.max_epochs = settings.epochs
    if settings.init and settings.init != NONE:
        cfg.merge_from_dict({"default_hooks.init": dict(type="InitHook", checkpoint=settings.init)})


def require_parts(cfg: Config) -> None:
    """Nothing, if a pretraining config has the dicts that settings are written into.

    Raises:
        SettingError: some are missing, or something else; the message has a line for each.
    """
    wrong = []
    for name in ("model", "model.data_preprocessor", "train_dataloader", "train_dataloader.dataset", *LENGTHS):
        *path, last = name.split(".")
        holder = cfg
        for part in path:
            holder = holder.get(part) if isinstance(holder, Mapping | Config) else None
        value = holder.get(last) if isinstance(holder, Mapping | Config) else None
        if not isinstance(value, Mapping) and not any(name.startswith(f"{line.split(':')[0]}.") for line in wrong):
            found = "missing" if value is None else f"found {value!r}"
            wrong.append(f"{name}: {found}, expected a dict: a pretraining needs it")
    if wrong:
        raise SettingError("\n".join(wrong))


def demo_photos(cfg: Config) -> Path:
    """The folder of the photos of a demo."""
    return Path(cfg.work_dir, "demo_photos")


def write_demo(cfg: Config) -> None:
    """Write the photos of a demo, where its data set is still theirs."""
    if cfg.train_dataloader.dataset.source == str(demo_photos(cfg)):
        write_demo_photos(demo_photos(cfg))


def complete_config(cfg: Config) -> None:
    """Fill in the entries of a pretraining config that follow from others, in place, after all settings are applied."""
    require_parts(cfg)
    link_views(cfg)
    if has_hook(cfg, "BadImagesHook"):  # which counts and tells what is replaced
        cfg.train_dataloader.dataset.setdefault("bad_images", "replace")
    workers = cfg.train_dataloader.get("num_workers", AUTO)
    cfg.train_dataloader.num_workers = workers
    cfg.train_dataloader.persistent_workers = workers != 0
    cfg.train_dataloader.pin_memory = torch.cuda.is_available()


def has_hook(cfg: Config, name: str) -> bool:
    """Whether a config has a hook of a type of densessl."""
    hooks = [*(cfg.get("default_hooks") or {}).values(), *(cfg.get("custom_hooks") or [])]
    types = [hook.get("type") for hook in hooks if isinstance(hook, Mapping)]
    return any(isinstance(kind, str) and kind.rpartition(".")[2] == name for kind in types)


def link_views(cfg: Config) -> None:
    """Copy the config's ``views``, or its ``view`` and the ``photometric`` operations of patches, into data set and
    preprocessor, and its ``regions`` into the data set."""
    dataset, preprocessor = cfg.train_dataloader.dataset, cfg.model.data_preprocessor
    if "regions" in cfg:
        dataset.regions = cfg.regions
    if "views" in cfg:
        dataset.views = preprocessor.views = cfg.views
    else:
        dataset.view = cfg.view
        dataset.photometric = preprocessor.photometric = cfg.photometric


def images_of(cfg: Config, most: int | None = None) -> ImageList:
    """List the images of a pretraining config; arguments and errors are those of
    :func:`densessl.data.sources.list_images`."""
    dataset = cfg.train_dataloader.dataset
    with remedies(
        source="Say where the images are with --data-root FOLDER, or try without data: --demo makes its own",
        root="Name that folder with --set train_dataloader.dataset.root=FOLDER",
    ):
        return list_images(dataset.source, dataset.get("root"), most)


def settle_sizes(cfg: Config) -> list[str]:
    """Replace every ``"auto"`` that depends on the number of images, in place: batch size, queue lengths, epochs.

    What they stood for is kept as ``cfg.settled``, and in the run's checkpoints. A resumed run takes it from there, so
    that it goes on as it began even if there are more images now.

    Returns:
        One log line for each.

    Raises:
        DensesslError: the images are not found, there are too few for any batch, or the checkpoint to resume cannot be
            read.
    """
    loader, lines = cfg.train_dataloader, []
    largest = loader.pop("largest_batch", None)
    cfg.pop(SETTLED, None)  # of the run that a config file was written by
    queues = {
        f"model.objectives.{number}.{key}": (objective, key)
        for number, objective in enumerate(cfg.model.get("objectives", ()))
        for key in QUEUES
        if objective.get(key) == AUTO
    }
    if AUTO not in (loader.batch_size, cfg.train_cfg.max_epochs) and not queues:
        return lines
    before, settled = settled_before(cfg), {}
    again = ", as in the run that is resumed"
    images = min(len(images_of(cfg).paths), loader.dataset.get("limit") or 2**62)
    at_once = processes(cfg.get("launcher", "none")) * cfg.optim_wrapper.get("accumulative_counts", 1)
    if loader.batch_size == AUTO:
        name = "train_dataloader.batch_size"
        step = before.get(name)  # of all processes
        kept = step is not None and step % at_once == 0
        fitting = step // at_once if kept else fitting_batch(images, at_once, largest if type(largest) is int else None)
        loader.batch_size = fitting
        settled[name] = fitting * at_once
        lines.append(f"batch_size='auto': {count(fitting, 'image')} per process, of {images:,} in all{again * kept}")
    step = loader.batch_size * at_once
    for name, (objective, key) in queues.items():
        settled[name] = objective[key] = before.get(name) or fitting_queue(images, step)
        told = f"a queue of {count(objective[key], 'key')}{again * (name in before)}"
        lines.append(f"{objective.get('name', objective.type)}: {key}='auto': {told}")
    if cfg.train_cfg.max_epochs == AUTO:
        name, in_an_epoch = "train_cfg.max_epochs", images // step
        settled[name] = epochs = before.get(name) or fitting_epochs(images, step)
        cfg.train_cfg.max_epochs = epochs
        steps = f"{count(in_an_epoch, 'step')}, {count(epochs * in_an_epoch, 'step')} in all"
        lines.append(f"max_epochs='auto': {count(epochs, 'epoch')} of {steps}{again * (name in before)}")
    cfg[SETTLED] = settled
    return lines


def settled_before(cfg: Config) -> dict[str, int]:
    """What ``"auto"`` stood for in the run that a config goes on with, by dotted name; empty for a new run. The batch
    size is that of a whole step.

    Raises:
        DensesslError: the checkpoint cannot be read.
    """
    resumed = checkpoint_to_resume(cfg.get("resume", False), cfg.get("load_from"), cfg.get("work_dir", "."))
    if resumed is None:
        return {}
    found: Any = read_checkpoint(resumed)
    for key in ("meta", "run", SETTLED):
        found = found.get(key) if isinstance(found, Mapping) else None
    found = found if isinstance(found, Mapping) else {}
    return {name: number for name, number in found.items() if type(number) is int and number >= 1}
