"""Load what the inspection of a checkpoint needs: its backbone, a randomly initialised one to compare, and images."""

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
    """Load the online backbone of a training checkpoint, and build one of the same config with random weights (seed 0).

    Returns:
        the trained and the random backbone, in evaluation mode on ``device``, and ``dict(mean, std)``, the
        normalisation of their images, whose values are from 0 to 255.

    Raises:
        CheckpointError: the file is not a checkpoint of a densessl pretraining, or its weights do not fit its config.
        SettingError: there is no such device.
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
    """The device of a name. Raises SettingError: this machine has no such device."""
    try:
        torch.empty(1, device=name)
        return torch.device(name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise SettingError(f"--device: found {name!r}, which is not available; expected 'cpu' or 'cuda'") from error


def load_images(folder: str | Path, count: int, size: int) -> Tensor:
    """Central squares of the first ``count`` images of a folder, in order: (N, 3, size, size) float, 0 to 255."""
    at_least("--images", count, 2)  # figures compare images
    listed = list_images(folder)
    return torch.cat(list(central_squares([Path(listed.root, name) for name in islice(listed.paths, count)], size)))
