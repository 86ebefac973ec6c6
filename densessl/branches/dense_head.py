"""The shared convolutions of one-stage detection heads (RetinaNet, FCOS), for pretraining by pixel-level terms."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from densessl.branches.fpn import conv_block
from densessl.branches.norm import NormConfig
from densessl.constraints import Count, Whole
from densessl.registry import MODELS
from densessl.wording import choose


@MODELS.register_module()
class DenseHeadConvs(nn.Module):
    """Towers of 3x3 convolutions with ReLU, one for classes and one for boxes, shared by all levels.

    Keys, initialisation and computation are those of MMDetection's heads without their last layers, which predict:
    ``{cls,reg}_convs.{i}.conv.*`` (``RetinaHead``), with a group norm also ``….gn.*`` (``FCOSHead`` and similar).

    Args:
        in_channels: channels of the neck's maps; the model fills them in.
        feat_channels: channels of every convolution.
        stacked_convs: number of convolutions of a tower.
        norm_cfg: None for RetinaNet; ``dict(type="GN", num_groups=32)`` for FCOS. A batch norm would mix the statistics
            of the levels.
        towers: the towers to build. Leave out a tower that no objective reads: under data parallelism every parameter
            must take part in the loss.

    Attributes:
        out_channels: channels of all maps.
    """

    def __init__(
        self,
        in_channels: Count,
        feat_channels: Count = 256,
        stacked_convs: Whole = 4,
        norm_cfg: NormConfig | None = None,
        towers: Sequence[Literal["cls", "reg"]] = ("cls", "reg"),
    ):
        super().__init__()
        self.out_channels = feat_channels
        self.towers = tuple(choose("head.towers", tower, ("cls", "reg")) for tower in towers)
        widths = [in_channels, *[feat_channels] * stacked_convs]
        for tower in self.towers:
            blocks = [conv_block(*pair, 3, norm_cfg=norm_cfg, relu=True) for pair in pairwise(widths)]
            self.add_module(f"{tower}_convs", nn.Sequential(*blocks))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, maps: Sequence[Tensor]) -> dict[str, tuple[Tensor, ...]]:
        """Maps (N, in_channels, H_l, W_l) of the neck to those of each tower, (N, feat_channels, H_l, W_l)."""
        return {tower: tuple(map(getattr(self, f"{tower}_convs"), maps)) for tower in self.towers}
