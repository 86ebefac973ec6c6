"""Normalisation layers by config."""

from collections.abc import Callable
from typing import Annotated, Any, TypedDict

from torch import nn
from torchvision.models.convnext import LayerNorm2d

from densessl.branches.sync_bn import SplitBN, SyncBN
from densessl.constraints import Config
from densessl.wording import choose

# Type: (layer for (N, C) or (N, C, L), layer for (N, C, H, W)).
NORMS: dict[str, tuple[Callable[..., nn.Module], Callable[..., nn.Module]]] = {
    "BN": (nn.BatchNorm1d, nn.BatchNorm2d),
    "SyncBN": (SyncBN, SyncBN),
    "SplitBN": (SplitBN, SplitBN),
    "LN": (nn.LayerNorm, LayerNorm2d),
    "GN": (nn.GroupNorm, nn.GroupNorm),
}


class NormKeys(TypedDict, total=False):
    """Keys that the config of any norm may have.

    Attributes:
        requires_grad: whether the parameters of the norm are trained.
    """

    requires_grad: bool


NormConfig = Annotated[  # of :func:`build_norm`
    dict,
    Config(
        {name: layers[1] for name, layers in NORMS.items()},
        given=("num_features", "num_channels", "normalized_shape", "process_group", "device", "dtype"),
        also=NormKeys,
    ),
]


def build_norm(cfg: dict[str, Any] | None, channels: int, dims: int = 2) -> nn.Module | None:
    """Build a normalisation layer.

    Args:
        cfg: ``dict(type=..., requires_grad=True, **arguments of the layer)``; None for no layer. Types: ``BN``,
            ``SyncBN`` (statistics of all ranks), ``SplitBN`` (``num_groups`` parts of the batch), ``LN`` (over the
            channels of each cell), ``GN`` (``num_groups`` groups of channels).
        channels: C.
        dims: 1 for vectors (N, C), 2 for maps (N, C, H, W).

    Raises:
        SettingError: unknown type; the message has the nearest.
    """
    if cfg is None:
        return None
    arguments = dict(cfg)
    layer = NORMS[choose("norm type", arguments.pop("type", None), NORMS)][dims - 1]
    trainable = arguments.pop("requires_grad", True)
    norm = layer(num_channels=channels, **arguments) if layer is nn.GroupNorm else layer(channels, **arguments)
    return norm.requires_grad_(trainable)
