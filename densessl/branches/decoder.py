"""A neck that merges all stages of a backbone into one fine map."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from densessl.constraints import Count
from densessl.registry import MODELS


@MODELS.register_module()
class SumDecoder(nn.Module):
    """The decoder of DenseSiam and PiCIE: the top-down path of a feature pyramid, without its 3x3 convolutions.

    Each stage passes a 1x1 convolution without norm or activation. From the coarsest stage on, the sum so far is
    upsampled bilinearly to the size of the next finer stage and added to it.

    Args:
        in_channels: channels of the stages, fine to coarse; the model fills in those of its backbone.
        out_channels: channels of the result.
    """

    num_outs = 1

    def __init__(self, in_channels: Sequence[Count], out_channels: Count = 128):
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(channels, out_channels, 1) for channels in in_channels)
        self.out_channels = out_channels

    def forward(self, levels: Sequence[Tensor]) -> tuple[Tensor]:
        """Maps (N, C_l, H_l, W_l), fine to coarse, to one map (N, out_channels, H_0, W_0).

        Raises:
            ValueError: not one map for each of ``in_channels``.
        """
        if len(levels) != len(self.lateral):
            raise ValueError(f"neck: found {len(levels)} maps, expected the {len(self.lateral)} of neck.in_channels")
        *finer, total = (convolution(level) for convolution, level in zip(self.lateral, levels))
        for level in reversed(finer):
            total = level + F.interpolate(total, level.shape[2:], mode="bilinear", align_corners=False)
        return (total,)
