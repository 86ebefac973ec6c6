"""Do the features still differ? Figures that fall, or rise, when a pretraining collapses."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from densessl.errors import SettingError
from densessl.figures import between_image_cosine, cell_vectors, channel_spread
from densessl.losses import full_precision


def between_image_similarity(maps: Tensor) -> float:
    """:func:`between_image_cosine` as a number.

    Raises:
        ValueError: fewer than two images.
    """
    if len(maps) < 2:
        raise SettingError(f"between_image_similarity compares images: got {len(maps)}, expected at least 2")
    return float(between_image_cosine(maps))


def channel_std(vectors: Tensor) -> float:
    """:func:`channel_spread` as a number."""
    return float(channel_spread(vectors))


def effective_rank(vectors: Tensor) -> float:
    """exp of the entropy of the singular values of the matrix (M, C), normalised to sum 1: how many directions are in
    use, from 1 to min(M, C) (Roy & Vetterli, EUSIPCO 2007). Not centred: one vector repeated has rank 1. NaN for a
    matrix of zeros, which has no directions."""
    values = torch.linalg.svdvals(*full_precision(vectors.detach()))
    shares = values / values.sum()
    return float(torch.special.entr(shares).sum().exp())


def map_spread(maps: Tensor) -> dict[str, float]:
    """The three figures of maps (N, C, H, W), by name."""
    vectors = cell_vectors(maps)
    return {
        "between_image_similarity": between_image_similarity(maps),
        "channel_std": channel_std(vectors),
        "effective_rank": effective_rank(vectors),
    }


def chosen_level(maps: Sequence[Tensor], level: int) -> Tensor:
    """One of a backbone's maps, counted from 0, or from -1 backwards. Raises SettingError: there is none."""
    if not -len(maps) <= level < len(maps):
        raise SettingError(f"--level: found {level}, expected 0 to {len(maps) - 1}, or -1 for the last map")
    return maps[level]


@torch.no_grad()
def backbone_spread(backbone: nn.Module, images: Tensor, level: int = -1, batch_size: int = 16) -> dict[str, float]:
    """``map_spread`` of one level of a backbone in evaluation mode; its mode is restored.

    Args:
        backbone: gives a tuple of maps (N, C, H, W).
        images: (N, 3, H, W), normalised, N >= 2, on the backbone's device.
        level: which of the maps.
        batch_size: images in one forward.
    """
    training = backbone.training
    backbone.eval()
    try:
        return map_spread(torch.cat([chosen_level(backbone(chunk), level) for chunk in images.split(batch_size)]))
    finally:
        backbone.train(training)
