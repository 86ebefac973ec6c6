"""FCN R50-d8, 512 px, 20k steps, on Pascal VOC 2012 with SBD's annotations as in DenseCL's paper
(protocol "VOC-FCN").

    pip install -e '.[seg]'
    torchrun --nproc_per_node 4 tools/train.py configs/transfer/voc/fcn_r50-d8_512_20k.py --launcher pytorch \
        --data-root data/VOCdevkit/VOC2012 --init r50.pth

SegmentationClassAug/ and ImageSets/Segmentation/aug.txt are made from SBD by MMSegmentation's voc_aug.py
(docs/transfer.md).

Differences from MMSegmentation's stock config: the plain ResNet that was pretrained, whose stem is one 7x7 convolution,
instead of ResNetV1c with three 3x3; no supervised weights. As in the stock config, stages 3 and 4 keep stride 8 by
dilation 2 and 4, BN is synchronised, and nothing is frozen.

Batch 4 GPUs x 4 = 16, lr 0.01, polynomial decay. Published for DenseCL, mean of 5 runs: on ImageNet, 200 epochs, mIoU
69.4 (MoCo v2 67.5, supervised 67.7); on COCO, 800 epochs, 67.5 (MoCo v2 64.5).
"""

_base_ = "mmseg::fcn/fcn_r50-d8_4xb4-20k_voc12aug-512x512.py"

custom_imports = dict(imports=["densessl.compat", "densessl.finetune"])
custom_hooks = [dict(type="densessl.LoadBackboneHook", checkpoint=None)]

model = dict(pretrained=None, backbone=dict(type="ResNet", init_cfg=None))
