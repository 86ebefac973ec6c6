"""Feature pyramid (Lin et al., CVPR 2017, arXiv 1612.03144), torch only, with the keys of MMDetection's ``FPN``."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from densessl.branches.norm import NormConfig, build_norm
from densessl.constraints import Count, Whole
from densessl.errors import SettingError
from densessl.registry import MODELS

NORM_KEYS = {"BN": "bn", "SyncBN": "bn", "SplitBN": "bn", "GN": "gn", "LN": "ln"}


def conv_block(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    stride: int = 1,
    norm_cfg: dict[str, Any] | None = None,
    relu: bool = False,
) -> nn.Sequential:
    """Convolution, norm, activation, with the keys of MMDetection's ``ConvModule``: ``conv.*``, then ``bn.*``, ``gn.*``
    or ``ln.*``. The convolution has a bias where no norm follows it."""
    padding, bias = kernel_size // 2, norm_cfg is None
    layers = OrderedDict(conv=nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=bias))
    if norm_cfg is not None:
        layers[NORM_KEYS[norm_cfg["type"]]] = build_norm(norm_cfg, out_channels)
    if relu:
        layers["activate"] = nn.ReLU(inplace=True)
    return nn.Sequential(layers)


@MODELS.register_module()
class FPN(nn.Module):
    """MMDetection's ``FPN``: a pyramid of maps of equal width, each of which includes all coarser stages.

    Keys: ``lateral_convs.{i}.conv.*`` and ``fpn_convs.{i}.conv.*``, where i counts from ``start_level``; the last
    ``fpn_convs`` belong to the extra levels. Outputs equal MMDetection's bit for bit.

    Args:
        in_channels: channels of the stages, fine to coarse; the model fills in those of its backbone.
        out_channels: channels of every output.
        start_level: the first stage used. The pyramid of RetinaNet starts at stride 8: 1, with all four stages.
        num_outs: number of outputs, fine to coarse; by default one for each stage used. Further outputs are extra
            levels.
        add_extra_convs: source of the extra levels: False for every second cell of the last output (Faster R-CNN),
            ``"on_input"`` for convolutions of stride 2 on the last stage (RetinaNet), ``"on_output"`` for convolutions
            on the last output (FCOS).
        relu_before_extra_convs: whether a ReLU precedes each extra convolution but the first.
        norm_cfg: config of the norms of all convolutions, see ``build_norm``; None for none.

    Raises:
        SettingError: an argument is out of range.
    """

    def __init__(
        self,
        in_channels: Sequence[Count],
        out_channels: Count = 256,
        start_level: Whole = 0,
        num_outs: Count | None = None,
        add_extra_convs: Literal[False, "on_input", "on_output"] = False,
        relu_before_extra_convs: bool = False,
        norm_cfg: NormConfig | None = None,
    ):
        super().__init__()
        if not 0 <= start_level < len(in_channels):
            raise SettingError(f"neck.start_level is {start_level}, expected 0 to {len(in_channels) - 1}")
        used = in_channels[start_level:]
        num_outs = len(used) if num_outs is None else num_outs
        if num_outs < len(used):
            raise SettingError(f"neck.num_outs is {num_outs}, expected at least {len(used)}: one for each stage used")
        if add_extra_convs not in (False, "on_input", "on_output"):
            raise SettingError(
                f"neck.add_extra_convs is {add_extra_convs!r}, expected False, 'on_input' or 'on_output'"
            )
        self.in_channels, self.out_channels = tuple(in_channels), out_channels
        self.start_level, self.num_outs = start_level, num_outs
        self.add_extra_convs, self.relu_before_extra_convs = add_extra_convs, relu_before_extra_convs

        self.lateral_convs = nn.ModuleList(conv_block(c, out_channels, 1, norm_cfg=norm_cfg) for c in used)
        self.fpn_convs = nn.ModuleList(conv_block(out_channels, out_channels, 3, norm_cfg=norm_cfg) for _ in used)
        if add_extra_convs:
            for i in range(num_outs - len(used)):
                channels = used[-1] if add_extra_convs == "on_input" and i == 0 else out_channels
                self.fpn_convs.append(conv_block(channels, out_channels, 3, stride=2, norm_cfg=norm_cfg))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, levels: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Maps (N, C_l, H_l, W_l) of the stages, fine to coarse, to ``num_outs`` maps (N, out_channels, h, w): the
        first ones have the sizes of the stages used, each extra one half the size of the one before, rounded up.

        Raises:
            SettingError: not one map for each of ``in_channels``.
        """
        if len(levels) != len(self.in_channels):
            raise SettingError(
                f"neck: found {len(levels)} maps, expected the {len(self.in_channels)} of neck.in_channels"
            )
        totals = [convolution(level) for convolution, level in zip(self.lateral_convs, levels[self.start_level :])]
        for i in range(len(totals) - 1, 0, -1):
            totals[i - 1] = totals[i - 1] + F.interpolate(totals[i], totals[i - 1].shape[2:], mode="nearest")
        outs = [convolution(total) for convolution, total in zip(self.fpn_convs, totals)]
        for i in range(len(totals), self.num_outs):
            if not self.add_extra_convs:
                outs.append(F.max_pool2d(outs[-1], 1, stride=2))
                continue
            source = levels[-1] if self.add_extra_convs == "on_input" and i == len(totals) else outs[-1]
            if self.relu_before_extra_convs and i > len(totals):
                source = F.relu(source)
            outs.append(self.fpn_convs[i](source))
        return tuple(outs)
