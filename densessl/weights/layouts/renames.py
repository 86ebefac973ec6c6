"""How other libraries name the tensors of a ResNet or ViT: rules (pattern, replacement), applied in order.

The rules lead to the names that torchvision, timm and MMDetection share. All rules may be applied to any network,
because no two libraries use one name for different tensors.
"""

import re

from densessl.weights.io.checkpoints import RenameRules

NAMES: RenameRules = [
    # torchvision's ResNet as nn.Sequential(*children): lightly, many PyTorch BYOLs, Fast-MoCo
    (r"^0\.(?=weight)", "conv1."),
    (r"^1\.(?=weight|bias|running_|num_)", "bn1."),
    (r"^4\.", "layer1."),
    (r"^5\.", "layer2."),
    (r"^6\.", "layer3."),
    (r"^7\.", "layer4."),
    # Caffe2: Detectron's and Detectron2's MSRA files
    (r"^conv1_w$", "conv1.weight"),
    (r"^res_conv1_bn_", "bn1_bn_"),
    (r"^res([2-5])_(\d+)_", r"res\1.\2."),
    (r"\.branch1_w$", ".downsample.0.weight"),
    (r"\.branch1_bn_", ".downsample.1_bn_"),
    (r"\.branch2a_w$", ".conv1.weight"),
    (r"\.branch2b_w$", ".conv2.weight"),
    (r"\.branch2c_w$", ".conv3.weight"),
    (r"\.branch2a_bn_", ".bn1_bn_"),
    (r"\.branch2b_bn_", ".bn2_bn_"),
    (r"\.branch2c_bn_", ".bn3_bn_"),
    (r"_bn_(?:s|gamma)$", ".weight"),
    (r"_bn_(?:b|beta)$", ".bias"),
    (r"_bn_(?:rm|running_mean)$", ".running_mean"),
    (r"_bn_(?:riv|running_var)$", ".running_var"),
    # Detectron2
    (r"^stem\.conv1\.norm\.", "bn1."),
    (r"^stem\.conv1\.", "conv1."),
    (r"^res2\.", "layer1."),
    (r"^res3\.", "layer2."),
    (r"^res4\.", "layer3."),
    (r"^res5\.", "layer4."),
    (r"^(layer\d\.\d+)\.conv([123])\.norm\.", r"\1.bn\2."),
    (r"^(layer\d\.\d+)\.shortcut\.norm\.", r"\1.downsample.1."),
    (r"^(layer\d\.\d+)\.shortcut\.", r"\1.downsample.0."),
    # mmpretrain's ViT
    (r"^patch_embed\.projection\.", "patch_embed.proj."),
    (r"^layers\.(\d+)\.ln([12])\.", r"blocks.\1.norm\2."),
    (r"^layers\.(\d+)\.attn\.gamma1\.weight$", r"blocks.\1.ls1.gamma"),
    (r"^layers\.(\d+)\.ffn\.gamma2\.weight$", r"blocks.\1.ls2.gamma"),
    (r"^layers\.(\d+)\.attn\.", r"blocks.\1.attn."),
    (r"^layers\.(\d+)\.ffn\.layers\.0\.0\.", r"blocks.\1.mlp.fc1."),
    (r"^layers\.(\d+)\.ffn\.layers\.1\.", r"blocks.\1.mlp.fc2."),
    (r"^ln1\.", "norm."),
    # torchvision's ViT, also lightly's
    (r"^class_token$", "cls_token"),
    (r"^conv_proj\.", "patch_embed.proj."),
    (r"^encoder\.pos_embedding$", "pos_embed"),
    (r"^encoder\.ln\.", "norm."),
    (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
    (r"^(blocks\.\d+)\.ln_([12])\.", r"\1.norm\2."),
    (r"^(blocks\.\d+)\.self_attention\.in_proj_", r"\1.attn.qkv."),
    (r"^(blocks\.\d+)\.self_attention\.out_proj\.", r"\1.attn.proj."),
    (r"^(blocks\.\d+)\.mlp\.(?:0|linear_1)\.", r"\1.mlp.fc1."),
    (r"^(blocks\.\d+)\.mlp\.(?:3|linear_2)\.", r"\1.mlp.fc2."),
]
# CCOP pretrains Detectron2's ResNet with its FPN.
BOTTOM_UP: RenameRules = [
    (r"^bottom_up\.", ""),
    (r"^fpn_lateral(\d)\.norm\.", lambda match: f"neck.lateral_convs.{int(match[1]) - 2}.bn."),
    (r"^fpn_lateral(\d)\.", lambda match: f"neck.lateral_convs.{int(match[1]) - 2}.conv."),
    (r"^fpn_output(\d)\.norm\.", lambda match: f"neck.fpn_convs.{int(match[1]) - 2}.bn."),
    (r"^fpn_output(\d)\.", lambda match: f"neck.fpn_convs.{int(match[1]) - 2}.conv."),
]
# Names under a backbone's prefix that are not part of it: heads, classifiers, queues, running averages.
HEADS = re.compile(
    r"(?:prototypes\w*|projection_head\w*|heads?|stem\.fc|fc1000_\w|pred_\w|conv1_b|\w*_momentum|n_averaged|steps)(?:\..*)?"
)
