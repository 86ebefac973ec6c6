"""PixPro's pixel propagation module."""

from torch import Tensor, nn

from densessl.branches.projector import MLP
from densessl.errors import SettingError
from densessl.losses import pixel_propagation
from densessl.registry import MODELS


@MODELS.register_module()
class PixelPropagation(nn.Module):
    """Replaces each cell by the similarity-weighted sum of all transformed cells of the map (PixPro, section 3.2).

    Args:
        dim: channels of the map.
        layers: depth of the value transform g: 0 identity, 1 a 1x1 convolution, 2 convolution, norm, ReLU, convolution.
        gamma: exponent of the similarity.
        clamp: lower bound of the similarity.
        norm: norm config of the two-layer transform; by default a plain BN, as in the official code, where all other
            norms are synchronised.
        hidden: hidden channels of a two-layer transform; ``dim`` by default.
    """

    def __init__(
        self,
        dim: int = 256,
        layers: int = 1,
        gamma: float = 2.0,
        clamp: float = 0.0,
        norm: dict | None = None,
        hidden: int | None = None,
    ):
        super().__init__()
        if layers == 0:
            self.transform = nn.Identity()
        elif layers == 1:
            self.transform = nn.Conv2d(dim, dim, 1)
        elif layers == 2:
            self.transform = MLP(kind="map", dims=(dim, hidden or dim, dim), norm=norm or dict(type="BN"))
        else:
            raise SettingError(f"transform_layers is {layers}, expected 0, 1 or 2")
        self.gamma = gamma
        self.clamp = clamp

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, H, W), not normalised."""
        return pixel_propagation(features, self.transform(features), self.gamma, self.clamp)
