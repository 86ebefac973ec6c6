"""The box head of C4 detectors, as papers on self-supervised pretraining fine-tune it."""

from typing import Any

from mmengine.model import BaseModule
from torch import Tensor, nn

from densessl.errors import SettingError
from densessl.registry import MODELS

# MMDetection's initialisation of such a head: He's normal for convolutions, ones for norms. Pretrained weights replace
# it.
INIT = [dict(type="Kaiming", layer="Conv2d"), dict(type="Constant", val=1, layer=["_BatchNorm", "GroupNorm"])]


@MODELS.register_module()
class Res5Head(BaseModule):
    """``roi_head.shared_head``: the last stage of a ResNet on the features of regions, followed by one more norm.

    The norm is that of MoCo's fine-tuning (He et al., CVPR 2020, arXiv 1911.05722; ``Res5ROIHeadsExtraNorm`` in its
    released code), which later papers keep. Self-supervised and supervised features have different scales; with a norm
    after them, one learning rate suits both.

    The keys ``layer4.*`` equal the ResNet's, so that the file of a whole backbone fills them; ``norm.*`` are new.

    Args:
        depth: depth of the ResNet: 50, 101 or 152 for bottlenecks, 18 or 34 for basic blocks.
        style: ``"pytorch"`` has the stride in the 3x3 convolution, as torchvision and densessl, ``"caffe"`` in the 1x1.
        norm_cfg: config of the norms in the stage and after it.
        init_cfg: as for any module of MMDetection.

    Raises:
        SettingError: there is no ResNet of this depth.
    """

    def __init__(
        self,
        depth: int = 50,
        style: str = "pytorch",
        norm_cfg: dict[str, Any] = dict(type="SyncBN", requires_grad=True),  # noqa: B006
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = INIT,
    ):
        from mmcv.cnn import build_norm_layer  # these three: of the det extra
        from mmdet.models.backbones import ResNet
        from mmdet.models.layers import ResLayer

        super().__init__(init_cfg)
        if depth not in ResNet.arch_settings:
            raise SettingError(f"Res5Head: depth={depth}, expected one of {list(ResNet.arch_settings)}")
        block, stages = ResNet.arch_settings[depth]
        channels = 256 * block.expansion
        self.layer4 = ResLayer(block, channels, 512, stages[3], stride=2, style=style, norm_cfg=norm_cfg)
        self.norm: nn.Module = build_norm_layer(norm_cfg, 512 * block.expansion)[1]

    def forward(self, x: Tensor) -> Tensor:
        """Turn features (N, C, H, W) of N regions into (N, 2C, H / 2, W / 2); C is 1024 for a ResNet-50."""
        return self.norm(self.layer4(x))
