"""What a checkpoint is looked at with: its backbone, one with random weights beside it, and images."""

from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from densessl.augment.photometric import IMAGENET_MEAN, IMAGENET_STD
from densessl.branches.backbone import build_backbone
from densessl.data.sources import list_images
from densessl.errors import CheckpointError, SettingError
from densessl.insight.knn import central_squares
from densessl.weights.file_configs import building, checked
from densessl.weights.io.checkpoints import load_weights, read_checkpoint
from densessl.weights.read import part_configs
from densessl.wording import at_least

PREFIX = "online.backbone."


def load_backbones(path: str | Path, device: str = "cpu") -> tuple[nn.Module, nn.Module, dict[str, Any]]:
    """The online backbone of a training checkpoint, one of the same config as randomly initialised by seed 0, and
    ``dict(mean, std)`` of its images.

    Raises:
        CheckpointError: the file is no checkpoint of a densessl pretraining, or holds another network than it says.
    """
    device = usable_device(device)
    about = part_configs(read_checkpoint(path).get("meta"))
    if "backbone" not in about:
        raise CheckpointError(
            f"{path}: meta['densessl']['backbone'] is missing; expected a checkpoint of a densessl pretraining"
        )
    weights = {key.removeprefix(PREFIX): value for key, value in load_weights(path).items() if key.startswith(PREFIX)}
    config = checked(about["backbone"], str(path), "backbone")
    with torch.random.fork_rng(devices=[]), building(str(path)):
        torch.manual_seed(0)
        trained, random = build_backbone(config), build_backbone(config)
        trained.load_state_dict(weights)
    normalize = about.get("normalize") or {}
    pixels = {"mean": normalize.get("mean", IMAGENET_MEAN), "std": normalize.get("std", IMAGENET_STD)}
    return trained.to(device).eval(), random.to(device).eval(), pixels


def usable_device(name: str) -> torch.device:
    """A device by its name. Raises SettingError: there is no such device here."""
    try:
        torch.empty(1, device=name)
        return torch.device(name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise SettingError(f"--device: found {name!r}, which is not here; expected 'cpu' or 'cuda'") from error


def load_images(folder: str | Path, count: int, size: int) -> Tensor:
    """The central squares of the first ``count`` images of a folder, in order, as (N, 3, size, size) of 0 to 255."""
    at_least("--images", count, 2)  # figures compare images
    listed = list_images(folder)
    return torch.cat(list(central_squares([Path(listed.root, name) for name in islice(listed.paths, count)], size)))
