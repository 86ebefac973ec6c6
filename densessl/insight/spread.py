"""Figures that reveal collapse: how much the features of different images and cells still differ."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from densessl.errors import SettingError
from densessl.figures import between_image_cosine, cell_vectors, channel_spread
from densessl.losses import full_precision


def between_image_similarity(maps: Tensor) -> float:
    """:func:`between_image_cosine` of maps (N, C, H, W), as a float.

    Raises:
        SettingError: there are fewer than two images.
    """
    if len(maps) < 2:
        raise SettingError(f"between_image_similarity compares images: got {len(maps)}, expected at least 2")
    return float(between_image_cosine(maps))


def channel_std(vectors: Tensor) -> float:
    """:func:`channel_spread` of vectors (M, C), as a float."""
    return float(channel_spread(vectors))


def effective_rank(vectors: Tensor) -> float:
    """Effective rank of a matrix (M, C), from 1 to min(M, C): the number of directions in use.

    It is exp(entropy) of the singular values normalised to sum 1 (Roy & Vetterli, EUSIPCO 2007). The vectors are not
    centred, so one repeated vector has rank 1. A matrix of zeros gives NaN.
    """
    values = torch.linalg.svdvals(*full_precision(vectors.detach()))
    shares = values / values.sum()
    return float(torch.special.entr(shares).sum().exp())


def map_spread(maps: Tensor) -> dict[str, float]:
    """Between-image similarity, channel deviation and effective rank of maps (N, C, H, W), by name."""
    vectors = cell_vectors(maps)
    return {
        "between_image_similarity": between_image_similarity(maps),
        "channel_std": channel_std(vectors),
        "effective_rank": effective_rank(vectors),
    }


def chosen_level(maps: Sequence[Tensor], level: int) -> Tensor:
    """The map at index ``level`` of a backbone's outputs; negative indices count from the end. Raises SettingError."""
    if not -len(maps) <= level < len(maps):
        raise SettingError(f"--level: found {level}, expected 0 to {len(maps) - 1}, or -1 for the last map")
    return maps[level]


@torch.no_grad()
def backbone_spread(backbone: nn.Module, images: Tensor, level: int = -1, batch_size: int = 16) -> dict[str, float]:
    """:func:`map_spread` of one level of a backbone in evaluation mode; its mode is restored.

    Args:
        backbone: returns a tuple of maps (N, C, H, W).
        images: (N, 3, H, W), normalised, N >= 2, on the backbone's device.
        level: index of the map to use.
        batch_size: number of images per forward pass.
    """
    training = backbone.training
    backbone.eval()
    try:
        return map_spread(torch.cat([chosen_level(backbone(chunk), level) for chunk in images.split(batch_size)]))
    finally:
        backbone.train(training)
