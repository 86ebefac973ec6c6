"""Measure how well the clusters of a trained DenseSiam segment labelled images.

The protocol is that of the released codes of DenseSiam and PiCIE. The largest central squares of image and labels are
resized to the network's training size (labels by nearest neighbour), the online projector's logits are upsampled to it,
and each cluster is assigned one class by Hungarian matching over all images.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from mmengine.registry import DefaultScope
from PIL import Image
from torch import Tensor, nn

from densessl.augment import normalize
from densessl.configs import load_config
from densessl.data.decode import read_image
from densessl.data.placed import central_square, crop, resize
from densessl.data.sources import list_images
from densessl.errors import FileMissing, SettingError
from densessl.insight.clustering import confusion, over_ranks
from densessl.overrides import apply_options
from densessl.pretraining import link_views
from densessl.registry import MODELS, SCOPE
from densessl.settings import require
from densessl.weights.io.checkpoints import load_weights
from densessl.weights.state import load_into
from densessl.wording import at_least


def load_model(config: str, checkpoint: str | Path, options: Mapping | None = None) -> tuple[nn.Module, nn.Module, int]:
    """Build the model of a config, with the weights of a checkpoint.

    Returns:
        the model in evaluation mode, its first objective that segments (has ``logits``), and the side of its last view
        in pixels.

    Raises:
        SettingError: no objective of the config segments, or settings of the config are wrong.
        LoadError: the weights do not fit.
    """
    cfg = load_config(config)
    apply_options(cfg, options or {})
    link_views(cfg)
    require(cfg, options or {})
    with DefaultScope.overwrite_default_scope(SCOPE):
        model = MODELS.build(cfg.model)
    found = [objective for objective in model.objectives.values() if hasattr(objective, "logits")]
    if not found:
        raise SettingError(f"{config}: no objective segments; found {sorted(model.objectives)}")
    load_into(model, load_weights(checkpoint), strict=True)
    return model.eval(), found[0], cfg.views[-1]["size"]


def load_pair(image: Path, label: Path, size: int) -> tuple[Tensor, Tensor]:
    """Load the central square of an image, (3, size, size) uint8, and of its labels, (size, size) int64.

    Raises:
        FileMissing: there is no label file.
        SettingError: the label file has another size than the image, or several channels.
    """
    placed = read_image(image)
    if not label.is_file():
        raise FileMissing(f"{image} has no labels: expected {label}")
    with Image.open(label) as opened:
        if opened.size != placed.size:
            raise SettingError(f"{label} has size {opened.size}, expected that of its image, {placed.size}")
        if len(opened.getbands()) != 1:
            raise SettingError(f"{label} has mode {opened.mode}, expected one number a pixel")
        left, top, side, _ = central_square(opened.size)
        square = opened.resize((size, size), Image.Resampling.NEAREST, (left, top, left + side, top + side))
    pixels = resize(crop(placed, *central_square(placed.size)), (size, size)).image
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1), torch.from_numpy(np.array(square, np.int64))


def read_mapping(path: str | Path) -> dict[int, int]:
    """Read the class of each label from a JSON file, ``{"label": class, …}``.

    Raises:
        SettingError: the file does not map whole numbers to whole numbers.
    """
    try:
        content = json.loads(Path(path).read_bytes())
    except ValueError as error:
        raise SettingError(f"--mapping: {path} is not JSON: {error}") from error
    try:
        return {int(old): int(new) for old, new in content.items()}
    except (AttributeError, TypeError, ValueError) as error:
        expected = 'expected {"label": class, …} of whole numbers'
        raise SettingError(f"--mapping: {path}: {expected}, found {content!s:.60}") from error


def renamed(labels: Tensor, ignore: int, mapping: Mapping[int, int] | None) -> Tensor:
    """Map labels to classes; ``ignore`` and labels that ``mapping`` lacks become -1."""
    if mapping is None:
        return torch.where(labels == ignore, -1, labels)
    result = torch.full_like(labels, -1)
    for old, new in mapping.items():
        if old != ignore:
            result[labels == old] = new
    return result


@torch.no_grad()
def count_pixels(
    model: nn.Module,
    objective: nn.Module,
    images: str | Path,
    labels: str | Path,
    size: int,
    ignore: int = 255,
    mapping: Mapping[int, int] | None = None,
    batch_size: int = 16,
) -> tuple[Tensor, float]:
    """Count the pixels of all images, over all ranks, by class and cluster.

    Args:
        objective: the model's objective that segments; see :func:`load_model`.
        images: folder, list file or COCO json, see :func:`densessl.data.sources.list_images`.
        labels: folder with a PNG for every image, of the same relative name.
        size: side in pixels of the squares that the network sees and that are compared.
        ignore: label of unlabelled pixels; labels outside 0 to classes - 1 are ignored too.
        mapping: class of each label in the files; None if the labels are the classes.

    Returns:
        (K, K) int64 numbers of pixels by (class, cluster), and the share of all pixels that have a class.

    Raises:
        SettingError: two images have one label file: ``a.jpg`` and ``a.png`` of a folder.
    """
    at_least("--size", size, 1)
    at_least("--batch-size", batch_size, 1)
    listed = list_images(images)
    _refuse_shared_labels(listed.paths, labels)
    rank, ranks = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    names = list(listed.paths)[rank::ranks]
    device = next(model.parameters()).device
    counts = torch.zeros(objective.widths["pixel"], objective.widths["pixel"], dtype=torch.int64, device=device)
    for start in range(0, len(names), batch_size):
        pairs = [
            load_pair(Path(listed.root, name), _label_file(labels, name), size)
            for name in names[start : start + batch_size]
        ]
        views, truth = (torch.stack(column).to(device) for column in zip(*pairs))
        views = normalize(views.float() / 255, model.data_preprocessor.mean, model.data_preprocessor.std)
        logits = F.interpolate(objective.logits(model.online, views), (size, size), mode="bilinear")
        counts += confusion(renamed(truth, ignore, mapping), logits.argmax(1), len(counts))
    pixels = len(listed.paths) * size**2
    counts = over_ranks(counts)
    return counts, counts.sum().item() / pixels


def _label_file(labels: str | Path, name: str) -> Path:
    return Path(labels, name).with_suffix(".png")


def _refuse_shared_labels(names: Iterable[str], labels: str | Path) -> None:
    """Raise SettingError if two images have one label file. (An image listed twice counts twice.)"""
    owners: dict[Path, str] = {}
    for name in names:
        place = _label_file(labels, name)
        if owners.setdefault(place, name) != name:
            raise SettingError(
                f"{owners[place]!r} and {name!r} have one label file, {place}: expected a file of its own for each "
                "image. Rename one of them, or list one with a .txt file as the images"
            )
