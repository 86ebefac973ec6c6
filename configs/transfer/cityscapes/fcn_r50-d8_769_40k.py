"""FCN R50-d8, 769 px, 40k steps, on Cityscapes as in DenseCL's paper (protocol "CS-FCN").

    pip install -e '.[seg]'
    python tools/cityscapes.py data/cityscapes
    torchrun --nproc_per_node 4 tools/train.py configs/transfer/cityscapes/fcn_r50-d8_769_40k.py --launcher pytorch \
        --data-root data/cityscapes --init r50.pth

Differences from MMSegmentation's stock config: the plain ResNet that was pretrained, whose stem is one 7x7 convolution,
instead of ResNetV1c with three 3x3; no supervised weights. As in the stock config, stages 3 and 4 keep stride 8 by
dilation 2 and 4, BN is synchronised, and nothing is frozen.

Batch 4 GPUs x 2 = 8, lr 0.01, polynomial decay. Published for DenseCL on COCO: mIoU 1.8 above MoCo v2's.
"""

_base_ = "mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-769x769.py"

custom_imports = dict(imports=["densessl.compat", "densessl.finetune"])
custom_hooks = [dict(type="densessl.LoadBackboneHook", checkpoint=None)]

model = dict(pretrained=None, backbone=dict(type="ResNet", init_cfg=None))
