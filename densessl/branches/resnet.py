"""ResNet v1.5 (stride in the 3x3) with the keys of torchvision and of MMDetection's ``ResNet(style='pytorch')``.

Keys: ``conv1.weight``, ``bn1.*``, ``layer{1..4}.{i}.{conv,bn}{1,2,3}.*``, ``layer{1..4}.0.downsample.{0,1}.*``.
There is no ``fc``.
"""

from functools import partial
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.models.resnet import BasicBlock, Bottleneck, conv1x1

from densessl.branches.norm import NormConfig, build_norm
from densessl.branches.recompute import recomputed
from densessl.constraints import Count, Range
from densessl.errors import SettingError
from densessl.registry import MODELS
from densessl.wording import choose

DEPTHS = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
}


@MODELS.register_module()
class ResNet(nn.Module):
    """ResNet without its classifier.

    Args:
        depth: 18, 34, 50 or 101.
        out_indices: stages whose maps are returned: 0 to 3, with strides 4, 8, 16 and 32. All stages exist; those after
            the last returned one do not run.
        norm_cfg: config of the norms, see ``build_norm``.
        frozen_stages: as in MMDetection: -1 for none, 0 for the stem, n for the stem and the first n stages, which stay
            in evaluation mode and get no gradients.
        norm_eval: keep all BatchNorms in evaluation mode.
        zero_gamma: initialise the last norm of each block at zero, so that blocks start as identities (PixPro, SimSiam;
            not MoCo, DenseCL).
        init_mode: Kaiming normal initialisation of convolutions for ReLU by ``"fan_out"`` (torchvision, PixPro) or
            ``"fan_in"`` (DenseCL).
        width: channels of the stem, 64 in every published ResNet; a smaller width keeps the keys.
        with_cp: recompute the activations of each block in the backward pass instead of keeping them.

    Attributes:
        out_channels, out_strides: channels and strides of the returned maps.

    Raises:
        SettingError: a value is out of range.
    """

    def __init__(
        self,
        depth: Literal[18, 34, 50, 101] = 50,
        out_indices: tuple[Annotated[int, Range(0, 3)], ...] = (3,),
        norm_cfg: NormConfig | None = None,
        frozen_stages: Annotated[int, Range(-1, 4)] = -1,
        norm_eval: bool = False,
        zero_gamma: bool = False,
        init_mode: Literal["fan_out", "fan_in"] = "fan_out",
        width: Count = 64,
        with_cp: bool = False,
    ):
        super().__init__()
        if depth not in DEPTHS:
            raise SettingError(f"ResNet: depth={depth}, expected one of {sorted(DEPTHS)}")
        if not out_indices or list(out_indices) != sorted(set(out_indices) & {0, 1, 2, 3}):
            raise SettingError(f"ResNet: out_indices={out_indices}, expected increasing stages from 0, 1, 2, 3")
        if not -1 <= frozen_stages <= 4:
            raise SettingError(f"ResNet: frozen_stages={frozen_stages}, expected -1 to 4")
        block, lengths = DEPTHS[depth]
        norm = partial(build_norm, norm_cfg or {"type": "BN"})
        self.out_indices, self.frozen_stages = tuple(out_indices), frozen_stages
        self.norm_eval, self.with_cp = norm_eval, with_cp
        self.out_channels = tuple(width * 2**stage * block.expansion for stage in out_indices)
        self.out_strides = tuple(4 * 2**stage for stage in out_indices)

        self.conv1 = nn.Conv2d(3, width, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = norm(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        channels = width
        for stage, length in enumerate(lengths):
            planes, blocks = width * 2**stage, nn.Sequential()
            for i in range(length):
                stride = 2 if stage and not i else 1
                downsample = None
                if stride > 1 or channels != planes * block.expansion:
                    downsample = nn.Sequential(
                        conv1x1(channels, planes * block.expansion, stride), norm(planes * block.expansion)
                    )
                blocks.append(block(channels, planes, stride, downsample, norm_layer=norm))
                channels = planes * block.expansion
            self.add_module(f"layer{stage + 1}", blocks)

        self._init_weights(choose("init_mode", init_mode, ("fan_in", "fan_out")), zero_gamma)
        # Stages after the last output never run, and data parallelism would wait for their gradients.
        unused = [getattr(self, f"layer{stage + 1}") for stage in range(out_indices[-1] + 1, 4)]
        for part in [*self._frozen(), *unused]:
            part.requires_grad_(False)
        self.train()

    def _init_weights(self, mode: str, zero_gamma: bool) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode=mode, nonlinearity="relu")
            elif zero_gamma and isinstance(module, BasicBlock | Bottleneck):
                nn.init.zeros_((module.bn3 if isinstance(module, Bottleneck) else module.bn2).weight)

    def _frozen(self) -> list[nn.Module]:
        stages = [getattr(self, f"layer{i + 1}") for i in range(self.frozen_stages)]
        return [self.conv1, self.bn1, *stages] if self.frozen_stages >= 0 else []

    def train(self, mode: bool = True) -> "ResNet":
        """Set the mode, except for frozen stages (and all BatchNorms under ``norm_eval``), which stay in evaluation
        mode."""
        super().train(mode)
        for part in self._frozen():
            part.eval()
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Images (N, 3, H, W) to one map (N, C, H / stride, W / stride) for each of ``out_indices``."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        maps = []
        for stage in range(self.out_indices[-1] + 1):
            for block in getattr(self, f"layer{stage + 1}"):
                x = recomputed(block, x) if self.with_cp and torch.is_grad_enabled() else block(x)
            if stage in self.out_indices:
                maps.append(x)
        return tuple(maps)
