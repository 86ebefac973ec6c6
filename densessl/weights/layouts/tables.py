"""Layouts of public checkpoints: the prefix of each network, and the facts that its source implies.

A layout is recognised by names that no later layout has. :mod:`densessl.weights.layouts.renames` has the names within a
network. Names are compared without the ``module.`` of data parallelism; names in nested dicts are joined by dots:
``teacher.backbone.conv1.weight``.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from densessl.weights.fingerprint import is_resnet
from densessl.weights.io.checkpoints import RenameRules
from densessl.weights.layouts.renames import BOTTOM_UP
from densessl.weights.vit_facts import is_vit


class Facts(NamedTuple):
    """Facts that a layout's source implies and tensors do not show; None means unknown.

    Attributes:
        resnet: Config of its ResNets in MMDetection's terms.
        heads: Attention heads of its ViTs by width; the norms' eps is then timm's, 1e-6.
        pixels: ``dict(mean=, std=, channel_order=)`` of the training images.
    """

    resnet: Mapping[str, Any] | None = None
    heads: Mapping[int, int] | None = None
    pixels: Mapping[str, Any] | None = None

    def config(self, state: Mapping[str, Tensor]) -> Mapping[str, Any] | None:
        """Return the config of the network with these tensors; None if it is neither a ResNet nor a ViT."""
        if is_resnet(state):
            return self.resnet
        if not is_vit(state) or self.heads is None:
            return None
        heads = self.heads.get(state["patch_embed.proj.weight"].shape[0])
        arguments = {"num_heads": heads} if heads else {}
        return dict(type="VisionTransformer", norm_cfg=dict(type="LN", eps=1e-6), **arguments)


STRIDE_3X3, STRIDE_1X1 = dict(type="ResNet", style="pytorch"), dict(type="ResNet", style="caffe")
LARGE = {768: 12, 1024: 16, 1280: 16}  # ViTs of these widths have the same number of heads everywhere
DEIT, MOCO_V3 = {192: 3, 384: 6, **LARGE}, {384: 12, **LARGE}
RGB = dict(channel_order="RGB")
MEAN = [123.675, 116.28, 103.53]
IMAGENET = dict(mean=MEAN, std=[58.395, 57.12, 57.375], **RGB)
# The first convolution contains the standard deviation.
MSRA = dict(mean=MEAN[::-1], std=[1.0, 1.0, 1.0], channel_order="BGR")
# torchvision's detectors have an eps of 1e-5, those of its first released weights an eps of 0.
NO_EPS = dict(STRIDE_3X3, norm_cfg=dict(type="BN", eps=None))

UNKNOWN = Facts()
OFFICIAL = Facts(STRIDE_3X3, DEIT, IMAGENET)
LIBRARY = Facts(STRIDE_3X3, LARGE, IMAGENET)  # libraries with ViTs of 384 channels with 6 heads and with 12
OWN_PIXELS = Facts(STRIDE_3X3, LARGE, RGB)  # libraries whose user chooses the normalisation


class Layout(NamedTuple):
    """A form of public checkpoints.

    Attributes:
        name: The code that writes it.
        marks: Patterns; for each, some name in the file begins with a match.
        online: Pattern of the backbone's prefix; if there are two networks, of the trained one.
        target: Pattern of the other network's prefix: momentum encoder, target, teacher. None if there is none.
        facts: What the source implies.
        default: The branch whose backbone the paper transfers.
        rules: Renaming rules to apply before ``NAMES``.
        folded: Norms may be folded into scale and shift.
        whole: Neck and head have MMDetection's names too.
        others: The backbone may be neither a ResNet nor a ViT.
        grouped: Other facts for backbones whose 3x3 convolutions have groups (ResNeXt); None if they are the same.
    """

    name: str
    marks: tuple[str, ...]
    online: str
    target: str | None = None
    facts: Facts = OFFICIAL
    default: str = "online"
    rules: RenameRules = []
    folded: bool = False
    whole: bool = False
    others: bool = False
    grouped: Facts | None = None

    @property
    def branches(self) -> dict[str, str]:
        """Prefixes by branch."""
        return {"online": self.online} | ({"target": self.target} if self.target else {})


# names are taken unchanged
OURS = Layout("densessl", (r"(?:online|target)\.backbone\.",), r"online\.", r"target\.", UNKNOWN)
ONE = r"(?:conv1|bn1|layer\d|layers|patch_embed|cls_token|pos_embed)\b"  # first name of a network at index 0 of a list
LAYOUTS = [
    # Detectors.
    Layout(
        "MMDetection",
        (r"backbone\.", r"\w*(?:bbox|rpn|roi|mask|decode)_head\."),
        r"backbone\.|roi_head\.shared_head\.(?=layer4\.)",
        facts=UNKNOWN,
        whole=True,
        others=True,
    ),
    Layout(
        "a detector of torchvision",
        (r"backbone\.body\.", r"backbone\.fpn\.(?:inner|layer)_blocks\."),
        r"backbone\.body\.",
        facts=Facts(NO_EPS, None, IMAGENET),
    ),
    Layout("the official code of a DETR", (r"backbone\.0\.body\.", r"transformer\."), r"backbone\.0\.body\."),
    Layout("CCOP", (r"backbone_q\.bottom_up\.",), r"backbone_q\.", r"backbone_k\.", rules=BOTTOM_UP),
    Layout(
        "a detector of Detectron2",
        (r"backbone\.(?:bottom_up\.)?res2\.",),
        r"backbone\.bottom_up\.|backbone\.(?=(?:stem|res\d)\.)|roi_heads\.(?=res5\.)",
        facts=UNKNOWN,
    ),
    Layout("Detectron2's ViTDet", (r"backbone\.net\.(?:pos_embed|blocks\.)",), r"backbone\.net\.", facts=UNKNOWN),
    # Student and teacher.
    Layout(
        "SCFS",
        (r"student\.(?:module\.)?backbone\.model\.", r"teacher\.(?:module\.)?backbone\.model\."),
        r"student\.(?:module\.)?backbone\.model\.",
        r"teacher\.(?:module\.)?backbone\.model\.",
        default="target",
    ),
    Layout(
        "DINO",
        (r"student\.(?:module\.)?backbone\.", r"teacher\.(?:module\.)?backbone\."),
        r"student\.(?:module\.)?backbone\.",
        r"teacher\.(?:module\.)?backbone\.",
        default="target",
    ),
    # OpenSelfSup, mmselfsup and mmpretrain.
    Layout("DenseCL", (rf"encoder_q\.0\.{ONE}", "queue2"), r"encoder_q\.0\.", r"encoder_k\.0\."),
    Layout("RegionCL or MoCo of OpenSelfSup", (rf"encoder_q\.0\.{ONE}",), r"encoder_q\.0\.", r"encoder_k\.0\."),
    Layout("BYOL of OpenSelfSup", (rf"online_net\.0\.{ONE}",), r"online_net\.0\.", r"target_net\.0\."),
    Layout("MoCo v3 of mmselfsup 0", (rf"base_encoder\.0\.{ONE}",), r"base_encoder\.0\.", r"momentum_encoder\.0\."),
    Layout(
        "mmselfsup or mmpretrain, with a target",
        (r"backbone\.", r"(?:encoder_k|target_net|momentum_encoder|teacher)\.module\.0\."),
        r"backbone\.",
        r"(?:encoder_k|target_net|momentum_encoder|teacher)\.module\.0\.",
        LIBRARY,
        others=True,
    ),
    Layout(  # its DINO also has a head
        "solo-learn",
        (r"(?:backbone|encoder)\.", r"classifier\.(?:weight|bias)"),
        r"(?:backbone|encoder)\.",
        r"momentum_(?:backbone|encoder)\.",
        OWN_PIXELS,
    ),
    Layout(
        "mmselfsup or mmpretrain",
        (r"backbone\.", r"head\.(?!fc\.|layers\.)|neck\.(?!lateral|fpn)"),
        r"backbone\.",
        facts=LIBRARY,
        others=True,
    ),
    # Its ViTs were trained on pixels scaled to -1 to 1, its ResNets with ImageNet's mean and deviation.
    Layout("a classifier of mmpretrain", (r"backbone\.", r"head\."), r"backbone\.", facts=OWN_PIXELS, others=True),
    # Official codes.
    Layout(
        "MoCo v3",
        (r"base_encoder\.", r"momentum_encoder\."),
        r"base_encoder\.",
        r"momentum_encoder\.",
        Facts(STRIDE_3X3, MOCO_V3, IMAGENET),
    ),
    Layout("MoCo", (r"encoder_q\.",), r"encoder_q\.(?:module\.)?", r"encoder_k\.(?:module\.)?"),
    Layout("PixPro", (r"encoder\.", r"projector\.linear1\."), r"encoder\.", r"encoder_k\."),
    Layout("TWIST", (r"backbone\.", r"projection_heads\."), r"backbone\."),
    Layout("Fast-MoCo", (r"backbone\.", r"bbone_ema\."), r"backbone\.", r"bbone_ema\."),
    Layout("SiameseIM", (r"blocks\.", r"mm_blocks\."), ""),
    Layout("MAE", (r"blocks\.", r"decoder_blocks\."), ""),
    # SwAV's pretraining divides by 0.228, its transfers by 0.229: the deviation stays unknown.
    Layout(
        "SwAV",
        (r"conv1\.", r"projection_head\.", r"prototypes\."),
        "",
        facts=OFFICIAL._replace(pixels=dict(mean=MEAN, **RGB)),
    ),
    Layout(
        "VISSL",
        (r"(?:classy_state_dict\.base_model\.model\.)?(?:trunk\.)?_feature_blocks\.",),
        r"(?:classy_state_dict\.base_model\.model\.)?(?:trunk\.)?_feature_blocks\.",
    ),
    # BYOL in PyTorch: by lucidrains; by sthalles and yaox12.
    Layout(
        "BYOL of byol-pytorch",
        (r"(?:learner\.)?online_encoder\.net\.",),
        r"(?:learner\.)?online_encoder\.net\.",
        r"(?:learner\.)?target_encoder\.net\.",
        OWN_PIXELS,
    ),
    Layout(
        "BYOL of PyTorch-BYOL",
        (r"online_network(?:_state_dict)?\.(?:module\.)?encoder\.",),
        r"online_network(?:_state_dict)?\.(?:module\.)?encoder\.",
        r"target_network(?:_state_dict)?\.(?:module\.)?encoder\.",
        OWN_PIXELS,
    ),
    # Libraries.
    Layout("SimSiam", (r"encoder\.", r"predictor\."), r"encoder\."),
    Layout("MoCo of lightly", (r"query_backbone\.",), r"query_backbone\.(?:vit\.)?", r"backbone\.(?:vit\.)?", LIBRARY),
    Layout(
        "DINO of lightly",
        (r"student_backbone\.",),
        r"student_backbone\.(?:vit\.)?",
        r"(?:teacher_)?backbone\.(?:vit\.)?",
        LIBRARY,
        default="target",
    ),
    Layout(
        "lightly",
        (r"backbone\.", r"projection_head|decoder\.decoder_"),
        r"backbone\.(?:vit\.)?",
        r"(?:backbone_momentum|teacher_backbone|momentum_backbone)\.(?:vit\.)?",
        LIBRARY,
    ),
    # Backbones only.
    Layout(
        "Caffe2 (MSRA)",
        (r"conv1_w$", "res_conv1_bn_", r"res2_0_branch2a_w$"),
        r"(?=conv1_w|res_conv1_bn_|res\d_\d+_branch)",
        facts=Facts(STRIDE_1X1, None, MSRA),
        folded=True,
        grouped=Facts(pixels=dict(mean=MEAN[::-1], channel_order="BGR")),  # stride and std differ from MSRA's
    ),
    Layout("Detectron2, from torchvision's names", (r"stem\.conv1\.weight", r"res2\."), r"(?=stem\.|res\d\.)"),
]
# Of no particular source; tried last.
PLAIN = [
    Layout("a model with a backbone", (r"backbone\.",), r"backbone\.", facts=UNKNOWN, whole=True, others=True),
    Layout(
        "a bare backbone", (r"(?:conv1|conv1\.0|stem\.0|0)\.weight", r"(?:layer1|4)\.0\.conv1\."), "", facts=UNKNOWN
    ),
    Layout("a bare ViT", (r"(?:patch_embed\.proj|patch_embed\.projection|conv_proj)\.",), "", facts=UNKNOWN),
]
